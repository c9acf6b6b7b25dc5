//! Posting to an HTTP endpoint, and what its answer means.
//!
//! No redirection is followed, no proxy is taken from the environment, and an
//! error names the host only: the rest of an URL may hold a secret.

use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use crate::dispatch::backoff::parse_retry_after;
use crate::dispatch::notifier::NotifyError;
use crate::dispatch::settings::HttpSettings;
use crate::dispatch::tls::{self, TlsError};
use crate::escape::one_line;
use crate::time::Timestamp;

/// Makes requests to one endpoint.
pub struct HttpClient {
    agent: Agent,
}

/// An answer with a status of its own.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: String,
}

/// Why requests cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Not an URL.
    #[error("the URL for `{0}` must begin with `https://`, or with `http://` and `allow_insecure: true`")]
    Url(String),
    /// A password in an URL.
    #[error("the URL for `{0}` holds a user or a password; give them by the keys for that, from a file")]
    Password(String),
    /// The proxy's URL.
    #[error("`proxy` is no URL of a proxy")]
    Proxy,
}

/// Whether an URL may leave the encrypted world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecure {
    /// It must be `https`.
    Refused,
    /// It may be `http`.
    Allowed,
}

impl HttpClient {
    /// A client with the certificates of the settings.
    pub fn new(settings: &HttpSettings) -> Result<Self, HttpError> {
        let certificates = tls::read(&settings.tls)?;
        let mut tls = TlsConfig::builder();
        if !certificates.roots.is_empty() {
            let roots: Vec<_> = certificates.roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
            tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        }
        if let Some((chain, _)) = &certificates.own {
            let chain: Vec<_> = chain.iter().map(|link| Certificate::from_der(link).to_owned()).collect();
            let pem = settings.tls.key_file.as_deref().map(std::fs::read).and_then(Result::ok).unwrap_or_default();
            // The key was read and parsed a moment ago.
            if let Ok(key) = PrivateKey::from_pem(&pem) {
                tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
        }
        let proxy = match &settings.proxy {
            Some(url) => Some(Proxy::new(url).map_err(|_| HttpError::Proxy)?),
            None => None,
        };
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(proxy)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(settings.timeout))
            .user_agent(concat!("egret/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent() })
    }

    /// Posts a body and reads the beginning of the answer.
    pub fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response, NotifyError> {
        let mut request = self.agent.post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body).map_err(|error| failure(url, error))?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| parse_retry_after(value, now));
        // The status says what matters; a body that cannot be read says nothing.
        let body = response.body_mut().with_config().limit(MOST_OF_AN_ANSWER).lossy_utf8(true).read_to_string();
        Ok(Response { status, retry_after, body: body.unwrap_or_default() })
    }
}

impl Response {
    /// What the status means for a delivery.
    pub fn verdict(&self, url: &str) -> Result<(), NotifyError> {
        let said = one_line(self.body.chars().take(200).collect::<String>().trim());
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let reason = format!("{} answered {}{said}", redacted(url), self.status);
        match self.status {
            200..=299 => Ok(()),
            429 => Err(NotifyError::Throttled { reason, retry_after: self.retry_after }),
            502..=504 => Err(NotifyError::Throttled { reason, retry_after: self.retry_after }),
            300..=399 => Err(NotifyError::Moved { reason }),
            401 | 403 | 407 => Err(NotifyError::Misconfigured { reason }),
            410 => Err(NotifyError::Gone { reason }),
            413 => Err(NotifyError::TooLarge { reason }),
            408 | 425 => Err(NotifyError::Transient { reason }),
            400..=499 => Err(NotifyError::Permanent { reason }),
            _ => Err(NotifyError::Transient { reason }),
        }
    }
}

/// Checks an URL before anything is sent there.
pub fn check(url: &str, insecure: Insecure) -> Result<(), HttpError> {
    let fine = url.starts_with("https://") || (insecure == Insecure::Allowed && url.starts_with("http://"));
    match url.parse::<ureq::http::Uri>() {
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Err(HttpError::Password(redacted(url)))
        }
        Ok(uri) if fine && uri.host().is_some() => Ok(()),
        _ => Err(HttpError::Url(redacted(url))),
    }
}

/// Scheme, host and port of an URL: neither the user nor the path, which may be secrets.
pub fn redacted(url: &str) -> String {
    match url.parse::<ureq::http::Uri>() {
        Ok(uri) => match (uri.scheme_str(), uri.host(), uri.port_u16()) {
            (Some(scheme), Some(host), Some(port)) => format!("{scheme}://{host}:{port}"),
            (Some(scheme), Some(host), None) => format!("{scheme}://{host}"),
            _ => "(no URL)".to_owned(),
        },
        Err(_) => "(no URL)".to_owned(),
    }
}

fn failure(url: &str, error: ureq::Error) -> NotifyError {
    let place = redacted(url);
    match error {
        ureq::Error::Timeout(timeout) => NotifyError::transient(format!("{place}: time-out ({timeout})")),
        ureq::Error::HostNotFound => NotifyError::misconfigured(format!("{place}: no such host")),
        ureq::Error::Rustls(rustls::Error::InvalidCertificate(error)) => {
            NotifyError::misconfigured(format!("{place}: certificate refused: {error}"))
        }
        ureq::Error::Tls(error) => NotifyError::misconfigured(format!("{place}: TLS: {error}")),
        ureq::Error::Io(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(rustls::Error::InvalidCertificate(error)) = inner {
                return NotifyError::misconfigured(format!("{place}: certificate refused: {error}"));
            }
            let text = error.to_string();
            if text.contains(crate::dispatch::email::NO_SUCH_HOST) {
                return NotifyError::misconfigured(format!("{place}: no such host"));
            }
            NotifyError::transient(format!("{place}: {text}"))
        }
        other => NotifyError::transient(format!("{place}: {}", one_line(other.to_string().replace(url, &place)))),
    }
}

/// Longer answers are cut.
const MOST_OF_AN_ANSWER: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_decides_what_is_done_next() {
        let verdict = |status| {
            let response = Response { status, retry_after: Some(Duration::from_secs(7)), body: String::new() };
            match response.verdict("https://user:key@hooks.example.org/secret") {
                Ok(()) => "ok",
                Err(NotifyError::Throttled { retry_after: Some(_), .. }) => "throttled",
                Err(NotifyError::Transient { .. }) => "transient",
                Err(NotifyError::Moved { .. }) => "moved",
                Err(NotifyError::Misconfigured { .. }) => "misconfigured",
                Err(NotifyError::Permanent { .. }) => "permanent",
                Err(NotifyError::TooLarge { .. }) => "too large",
                Err(NotifyError::Gone { .. }) => "gone",
                Err(_) => "other",
            }
        };
        assert_eq!([200, 202, 204].map(verdict), ["ok"; 3]);
        assert_eq!([429, 502, 503, 504].map(verdict), ["throttled"; 4]);
        assert_eq!([408, 425, 500, 599].map(verdict), ["transient"; 4]);
        assert_eq!([301, 302, 308].map(verdict), ["moved"; 3]);
        assert_eq!([401, 403, 407].map(verdict), ["misconfigured"; 3]);
        assert_eq!([400, 404, 422].map(verdict), ["permanent"; 3]);
        assert_eq!([410, 413].map(verdict), ["gone", "too large"]);
    }

    #[test]
    fn errors_name_the_host_only() {
        let response = Response { status: 500, retry_after: None, body: "no\nway".into() };
        let error = response.verdict("https://user:key@hooks.example.org:8443/secret?token=1").unwrap_err();
        assert_eq!(error.to_string(), "https://hooks.example.org:8443 answered 500: no\\nway");
    }

    #[test]
    fn only_encrypted_urls_without_permission() {
        assert!(check("https://hooks.example.org/x", Insecure::Refused).is_ok());
        assert!(check("http://hooks.example.org/x", Insecure::Refused).is_err());
        assert!(check("http://hooks.example.org/x", Insecure::Allowed).is_ok());
        assert!(check("https://user:pw@hooks.example.org/x", Insecure::Refused).is_err());
        assert!(check("ftp://hooks.example.org/x", Insecure::Allowed).is_err());
    }
}
