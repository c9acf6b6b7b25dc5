//! Alerts to an HTTP endpoint: our JSON, signed.

use crate::alert::Delivery;
use crate::dispatch::http::{self, HttpClient, HttpError, Insecure};
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::secret::{Secret, SecretError, SecretPlace, is_secret_header};
use crate::dispatch::settings::WebhookSettings;
use crate::dispatch::signature::{SignatureError, Signer};
use crate::time::Timestamp;

/// Posts each delivery.
pub struct WebhookOutput {
    url: Secret,
    client: HttpClient,
    signer: Signer,
    headers: Vec<(String, Secret)>,
}

/// Why a webhook cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL or certificates.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Nowhere to post.
    #[error("give `url` or `url_file`")]
    NoUrl,
    /// A secret where everybody who reads the configuration sees it.
    #[error(
        "`headers` must not hold a secret such as `{0}`; put its value in a file and name that as `authorization_file`"
    )]
    SecretHeader(String),
    /// A header that HTTP cannot carry.
    #[error("`{0}` is no header with a value that HTTP can carry")]
    Header(String),
}

impl WebhookOutput {
    /// An output that connects with its first delivery.
    pub fn new(settings: &WebhookSettings) -> Result<Self, WebhookError> {
        let hidden = SecretPlace {
            key: "url",
            file: settings.url_file.as_deref(),
            env: settings.url_env.as_deref(),
            credential: settings.url_credential.as_deref(),
        };
        let written = settings.url.as_deref().map(Secret::from);
        let url = hidden.read()?.or(written).ok_or(WebhookError::NoUrl)?;
        http::check(url.reveal(), if settings.allow_insecure { Insecure::Allowed } else { Insecure::Refused })?;
        let current = SecretPlace {
            key: "secret",
            file: settings.secret_file.as_deref(),
            env: settings.secret_env.as_deref(),
            credential: settings.secret_credential.as_deref(),
        };
        let file = |key, file| SecretPlace { key, file, ..SecretPlace::default() };
        let previous = file("previous_secret", settings.previous_secret_file.as_deref());
        let secrets: Vec<Secret> = [current.read()?, previous.read()?].into_iter().flatten().collect();
        let mut headers: Vec<(String, Secret)> =
            settings.headers.iter().map(|(name, value)| (name.clone(), Secret::from(value.as_str()))).collect();
        let authorization = file("authorization", settings.authorization_file.as_deref()).read()?;
        headers.extend(authorization.map(|value| ("Authorization".to_owned(), value)));
        if let Some(name) = settings.headers.keys().find(|name| is_secret_header(name)) {
            return Err(WebhookError::SecretHeader(name.clone()));
        }
        for (name, value) in &headers {
            let sound = name.parse::<ureq::http::HeaderName>().is_ok()
                && ureq::http::HeaderValue::from_str(value.reveal()).is_ok();
            if !sound {
                return Err(WebhookError::Header(name.clone()));
            }
        }
        Ok(Self {
            url,
            client: HttpClient::new(&settings.http)?,
            signer: Signer::new(settings.scheme, &secrets)?,
            headers,
        })
    }
}

impl Notifier for WebhookOutput {
    fn send(&mut self, delivery: &Delivery, now: Timestamp) -> Result<(), NotifyError> {
        let id = format!("msg_{}", delivery.id);
        let signed = self.signer.headers(&id, now, &delivery.payload);
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(signed.iter().map(|(name, value)| (*name, value.as_str())));
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())));
        let url = self.url.reveal();
        self.client.post(url, &headers, &delivery.payload, now)?.verdict(url)
    }
}
