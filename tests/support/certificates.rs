//! A certificate authority for one test and the certificate of its servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// PEM files in the test's directory.
pub struct Certificates {
    /// The authority that clients trust.
    pub authority: PathBuf,
    /// The servers' certificate.
    pub certificate: PathBuf,
    /// The servers' key.
    pub key: PathBuf,
}

impl Certificates {
    /// A new authority and a certificate for the given names and addresses.
    pub fn new(directory: &Path, names: &[&str]) -> Self {
        let authority_key = KeyPair::generate().expect("key generation needs no input");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names, none invalid");
        authority.distinguished_name.push(DnType::CommonName, "authority of a test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = authority.self_signed(&authority_key).expect("the authority signs itself");
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().expect("key generation needs no input");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names).expect("the test's names are valid");
        server.distinguished_name.push(DnType::CommonName, "servers of a test");
        let server = server.signed_by(&key, &issuer).expect("the authority signs the servers' certificate");

        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).expect("the test's directory is writable");
            path
        };
        Self {
            authority: write("authority.pem", root.pem()),
            certificate: write("server.pem", server.pem()),
            key: private(write("server.key", key.serialize_pem())),
        }
    }
}

/// A key that others cannot read, as Egret wants it.
fn private(path: PathBuf) -> PathBuf {
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    path
}
