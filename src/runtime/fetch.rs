//! Fetches published lists and keeps the last good copy of each.
//!
//! Only over HTTPS. A list that did not change is not sent again (`ETag`,
//! `Last-Modified`). What comes is read in full as a list before it takes the
//! place of the copy, in one rename: an error page, half a file or an empty
//! list never replaces a good one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::ListSettings;
use crate::names::{List, ListCounts, ListError};

/// How fetching a list ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// There is a new copy with these entries.
    New(ListCounts),
    /// The copy is what the publisher has.
    Unchanged,
}

/// Why a list was not fetched. The copy is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name would be a path of its own.
    #[error("`{name}` is no name for a list: letters, digits, `-` and `_` are")]
    Name {
        /// The name.
        name: String,
    },
    /// Nobody vouches for what comes without TLS.
    #[error("`{url}` is no `https://` URL")]
    NotHttps {
        /// The URL.
        url: String,
    },
    /// The certificates to trust cannot be read.
    #[error("cannot read certificates from `{}`", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server was not reached, or stopped answering.
    #[error("cannot fetch `{url}`")]
    Request {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server refused.
    #[error("`{url}` answered {status}")]
    Status {
        /// The URL.
        url: String,
        /// The status code.
        status: u16,
    },
    /// The list is larger than its bound.
    #[error("`{url}` has more than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// What came is no list.
    #[error("what `{url}` has is no list")]
    List {
        /// The URL.
        url: String,
        /// What is wrong with it.
        #[source]
        source: ListError,
    },
    /// What came is a list without an entry.
    #[error("the list at `{url}` is empty")]
    Empty {
        /// The URL.
        url: String,
    },
    /// The copy cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What a copy came from, kept beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Provenance {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// Where the copy of a list is kept.
pub fn copy_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.list"))
}

/// Fetches a list into `folder` unless the copy there is what the publisher has.
pub fn fetch(name: &str, settings: &ListSettings, folder: &Path) -> Result<Fetched, FetchError> {
    let url = || settings.url.clone();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(FetchError::Name { name: name.to_owned() });
    }
    if !settings.url.starts_with("https://") {
        return Err(FetchError::NotHttps { url: url() });
    }
    let copy = copy_of(folder, name);
    let notes = folder.join(format!("{name}.json"));
    let known = known(&copy, &notes, &settings.url);
    let request = |source: ureq::Error| FetchError::Request { url: url(), source: Box::new(source) };
    let mut call = agent(settings)?.get(&settings.url);
    if let Some(etag) = &known.etag {
        call = call.header("If-None-Match", etag);
    }
    if let Some(moment) = &known.last_modified {
        call = call.header("If-Modified-Since", moment);
    }
    let mut response = call.call().map_err(request)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if known != Provenance::default() => return Ok(Fetched::Unchanged),
        status => return Err(FetchError::Status { url: url(), status: status.as_u16() }),
    }
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let provenance = Provenance { url: url(), etag: header("etag"), last_modified: header("last-modified") };
    let mut text = Vec::new();
    let mut body = response.body_mut().with_config().limit(u64::MAX).reader().take(settings.max_bytes + 1);
    body.read_to_end(&mut text).map_err(|source| request(source.into()))?;
    if text.len() as u64 > settings.max_bytes {
        return Err(FetchError::TooLarge { url: url(), limit: settings.max_bytes });
    }
    let list = List::parse(&text, settings.max_items).map_err(|source| FetchError::List { url: url(), source })?;
    if list.is_empty() {
        return Err(FetchError::Empty { url: url() });
    }
    let written = |path: &Path, bytes: &[u8]| {
        replace(path, bytes).map_err(|source| FetchError::Write { path: path.to_owned(), source })
    };
    written(&copy, &text)?;
    // Plain strings always become JSON.
    written(&notes, &serde_json::to_vec(&provenance).unwrap_or_default())?;
    Ok(Fetched::New(list.counts))
}

/// What is known of the copy; nothing where it is gone or came from elsewhere.
fn known(copy: &Path, notes: &Path, url: &str) -> Provenance {
    let read = || serde_json::from_slice::<Provenance>(&fs::read(notes).ok()?).ok();
    read().filter(|known| known.url == url && copy.exists()).unwrap_or_default()
}

fn agent(settings: &ListSettings) -> Result<Agent, FetchError> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = &settings.ca_file {
        let wrap = |source| FetchError::Certificates { path: path.clone(), source };
        let pem = fs::read(path).map_err(wrap)?;
        let roots: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if roots.is_empty() {
            return Err(wrap(io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it")));
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&roots));
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(settings.timeout))
        .user_agent(concat!("egret/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.new_agent())
}

/// Writes a file so that a reader sees the old one or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// Publishers move their lists, seldom and not far.
const MAX_REDIRECTS: u32 = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
