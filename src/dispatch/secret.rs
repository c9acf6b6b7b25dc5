//! Secrets: read once from where the configuration points, never shown.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A password, a token or a key. Its `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Where a secret is kept; at most one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretPlace<'a> {
    /// What the key is called without its ending: `password`, `secret`.
    pub key: &'a str,
    /// `KEY_file`: a file that others cannot read.
    pub file: Option<&'a Path>,
    /// `KEY_env`: a variable of the environment.
    pub env: Option<&'a str>,
    /// `KEY_credential`: a systemd credential of this service.
    pub credential: Option<&'a str>,
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the {key} from `{path}`")]
    Read {
        /// What it is for.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Everybody on this host could read it.
    #[error("`{path}` holds a secret and may be read by everybody (R0602); run `chmod o-r {path}`")]
    WorldReadable {
        /// The file.
        path: PathBuf,
    },
    /// The variable is not set.
    #[error("the environment has no variable `{name}` for the {key}")]
    NoVariable {
        /// What it is for.
        key: String,
        /// The variable.
        name: String,
    },
    /// This is no systemd service with credentials.
    #[error("there is no credential `{name}` for the {key}: `$CREDENTIALS_DIRECTORY` is not set")]
    NoCredentials {
        /// What it is for.
        key: String,
        /// The credential.
        name: String,
    },
    /// Several places.
    #[error("give only one of `{key}_file`, `{key}_env` and `{key}_credential`")]
    SeveralPlaces {
        /// What it is for.
        key: String,
    },
    /// Nothing in it.
    #[error("the {key} is empty")]
    Empty {
        /// What it is for.
        key: String,
    },
}

impl Secret {
    /// The secret itself, for the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SecretPlace<'_> {
    /// Reads it; `None` where no place is given. Line ends around it do not count.
    pub fn read(&self) -> Result<Option<Secret>, SecretError> {
        let key = self.key.to_owned();
        let text = match (self.file, self.env, self.credential) {
            (None, None, None) => return Ok(None),
            (Some(path), None, None) => read_file(&key, path)?,
            (None, Some(name), None) => {
                std::env::var(name).map_err(|_| SecretError::NoVariable { key: key.clone(), name: name.to_owned() })?
            }
            (None, None, Some(name)) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials { key: key.clone(), name: name.to_owned() })?;
                read_file(&key, &Path::new(&directory).join(name))?
            }
            _ => return Err(SecretError::SeveralPlaces { key }),
        };
        match text.trim() {
            "" => Err(SecretError::Empty { key }),
            secret => Ok(Some(Secret(secret.to_owned()))),
        }
    }
}

fn read_file(key: &str, path: &Path) -> Result<String, SecretError> {
    let failed = |source| SecretError::Read { key: key.to_owned(), path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.mode() & 0o004 != 0 {
        return Err(SecretError::WorldReadable { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Refuses a file with a secret that everybody on this host could read.
pub fn refuse_readable(path: &Path) -> Result<(), SecretError> {
    let failed = |source| SecretError::Read { key: "key".to_owned(), path: path.to_owned(), source };
    match std::fs::metadata(path).map_err(failed)?.mode() & 0o004 {
        0 => Ok(()),
        _ => Err(SecretError::WorldReadable { path: path.to_owned() }),
    }
}

/// Whether a header's value is a secret by the header's name, and belongs into a file.
pub fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "cookie", "token", "secret", "api-key", "apikey", "password"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_comes_from_a_private_file_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let place = SecretPlace { key: "password", file: Some(file.path()), ..SecretPlace::default() };
        let secret = place.read().unwrap().unwrap();
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), ("s3cret", "***"));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(place.read().unwrap_err().to_string().contains("may be read by everybody"));
    }

    #[test]
    fn wrong_places_are_told() {
        let read = |file: Option<&str>, env| {
            SecretPlace { key: "secret", file: file.map(Path::new), env, credential: None }
                .read()
                .map(|secret| secret.is_some())
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(None, None), Ok(false));
        assert_eq!(read(Some("/nowhere"), None), Err("cannot read the secret from `/nowhere`".to_owned()));
        assert!(is_secret_header("X-Api-Key") && is_secret_header("authorization") && !is_secret_header("X-Scope"));
        assert!(read(Some("/a"), Some("B")).unwrap_err().starts_with("give only one of `secret_file`"));
        assert!(read(None, Some("EGRET_NO_SUCH")).unwrap_err().contains("no variable `EGRET_NO_SUCH`"));
    }
}
