//! The rules that ship, inside the program: it works without a file beside it.

use crate::rule::diagnose::Source;

macro_rules! shipped {
    ($($name:literal)*) => {
        const FILES: &[(&str, &str)] = &[$((concat!("rules/", $name), include_str!(concat!("../../rules/", $name)))),*];
    };
}

shipped! {
    "dns.yaml" "paths.yaml" "patterns.yaml" "policy.yaml" "programs.yaml" "protocols.yaml" "services.yaml" "site.yaml"
    "visibility.yaml"
}

/// Every rule file that ships, in byte order of the path.
pub fn sources() -> Vec<Source> {
    FILES.iter().map(|(path, text)| Source::new(*path, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_pack_ships() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
        let on_disk = crate::config::rule_files::read(&[folder.into()]).unwrap();
        // The tests of the rules stay in the source tree.
        let rules = on_disk.iter().filter(|source| !source.path.contains("/rules/tests/"));
        let expected: Vec<&str> = rules.filter_map(|source| source.path.rsplit('/').next()).collect();
        let shipped: Vec<&str> = FILES.iter().filter_map(|(path, _)| path.rsplit('/').next()).collect();
        assert_eq!(shipped, expected);
    }
}
