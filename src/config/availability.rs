//! Which fields nothing on this host sets, and what they would need.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Settings;
use crate::rule::Field;

/// Fields that are missing in every flow of this host, with what they need.
pub fn missing_fields(settings: &Settings) -> BTreeMap<Field, String> {
    let has = |part: &str| settings.databases.iter().any(|path| kind_of(path).to_ascii_lowercase().contains(part));
    let places = [
        (Field::DstAsn, has("asn") || has("isp")),
        (Field::DstAsOrg, has("asn") || has("isp")),
        (Field::DstCountry, has("country") || has("city") || has("enterprise")),
    ];
    let runtimes = one_exists(RUNTIMES);
    let kubelet = one_exists(&["/var/lib/kubelet"]);
    let there = [
        (Field::ContainerName, runtimes),
        (Field::ContainerImage, runtimes),
        (Field::ContainerLabels, runtimes || kubelet),
        (Field::Pod, kubelet),
        (Field::KubernetesNamespace, kubelet),
        (Field::ExePackage, one_exists(PACKAGES)),
        (Field::HostTags, !settings.host.tags.is_empty()),
    ];
    let absent = places.into_iter().chain(there).filter(|(_, is_there)| !is_there);
    absent.filter_map(|(field, _)| Some((field, field.needs()?.to_owned()))).collect()
}

/// What a database says that it is, such as `GeoLite2-ASN`: a word in its last bytes. Empty where it cannot be read.
fn kind_of(path: &Path) -> String {
    let Ok(content) = std::fs::read(path) else { return String::new() };
    let Ok(database) = crate::names::PlaceDatabase::from_bytes(content) else { return String::new() };
    database.kind().to_owned()
}

fn one_exists(paths: &[&str]) -> bool {
    paths.iter().any(|path| Path::new(path).exists())
}

/// Where container engines keep the state that names and images are read from.
const RUNTIMES: &[&str] = &[
    "/var/lib/docker",
    "/var/lib/containerd",
    "/run/containerd",
    "/var/lib/containers",
    "/run/containers",
    "/run/crio",
];

/// The databases of dpkg and rpm.
const PACKAGES: &[&str] = &["/var/lib/dpkg/info", "/var/lib/rpm", "/usr/lib/sysimage/rpm"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn what_is_configured_is_there_and_what_is_not_is_missing() {
        let mut settings = Settings::of(ConfigFile::default());
        let missing = missing_fields(&settings);
        assert!(missing.contains_key(&Field::DstAsn) && missing.contains_key(&Field::HostTags));
        assert!(!missing.contains_key(&Field::Exe), "every source names executables");
        settings.host.tags.push("lab".into());
        assert!(!missing_fields(&settings).contains_key(&Field::HostTags));
    }
}
