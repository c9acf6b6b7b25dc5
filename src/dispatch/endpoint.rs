//! Alerts to services with an HTTP interface of their own: chats, pagers, collectors.
//!
//! One output for all of them: they differ in what stands in the body (see
//! [`encode`](crate::dispatch::encode)), in how they are told who we are, and in
//! how they say no.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::alert::Delivery;
use crate::dispatch::http::{self, HttpClient, HttpError, Insecure, Response};
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::secret::{Secret, SecretError, SecretPlace, is_secret_header};
use crate::dispatch::settings::{EndpointSettings, Service};
use crate::time::Timestamp;

/// Posts each delivery to one service.
pub struct EndpointOutput {
    service: Service,
    url: Secret,
    /// The other members of a cluster: each gets everything.
    others: Vec<Secret>,
    token: Option<Secret>,
    headers: Vec<(String, Secret)>,
    client: HttpClient,
    content_type: String,
    /// Alertmanager forgets alerts that are not repeated: the last word of each, by its labels.
    standing: BTreeMap<String, Standing>,
    repeated_at: Timestamp,
}

struct Standing {
    alert: Json,
    /// A resolution is repeated for a while, then forgotten.
    forget_at: Option<Timestamp>,
}

/// Why an endpoint cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The URL or certificates.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Something is missing.
    #[error("{service} needs `{key}`")]
    Missing {
        /// The service's name.
        service: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A key of another service.
    #[error("`{key}` means nothing to {service}")]
    Meaningless {
        /// The service's name.
        service: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A secret where everybody who reads the configuration sees it.
    #[error("`headers` must not hold a secret such as `{0}`; put its value in a file and name that as `token_file`")]
    SecretHeader(String),
    /// A header that HTTP cannot carry.
    #[error("`{0}` is no header with a value that HTTP can carry")]
    Header(String),
    /// The template cannot be read.
    #[error("the template is wrong: {0}")]
    Template(String),
}

impl EndpointOutput {
    /// An output that connects with its first delivery.
    pub fn new(service: Service, settings: &EndpointSettings) -> Result<Self, EndpointError> {
        check_keys(service, settings)?;
        let place = |key, file: &Option<std::path::PathBuf>, env: &Option<String>, credential: &Option<String>| {
            SecretPlace { key, file: file.as_deref(), env: env.as_deref(), credential: credential.as_deref() }.read()
        };
        let hidden = place("url", &settings.url_file, &settings.url_env, &settings.url_credential)?;
        let token = place("token", &settings.token_file, &settings.token_env, &settings.token_credential)?;
        let missing = |key| EndpointError::Missing { service: service.name(), key };
        let first = settings.url.as_deref().or(settings.urls.first().map(String::as_str));
        let written = first.or(service.default_url()).map(Secret::from);
        let url = hidden.or(written).ok_or_else(|| missing("url"))?;
        let others = settings.urls.iter().filter(|other| **other != url.reveal());
        let others: Vec<Secret> = others.map(|other| Secret::from(other.as_str())).collect();
        for url in others.iter().chain([&url]) {
            http::check(url.reveal(), if settings.allow_insecure { Insecure::Allowed } else { Insecure::Refused })?;
        }
        if service.needs_token() && token.is_none() {
            return Err(missing("token_file"));
        }
        let mut headers: Vec<(String, Secret)> =
            settings.headers.iter().map(|(name, value)| (name.clone(), Secret::from(value.as_str()))).collect();
        if let Some(name) = settings.headers.keys().find(|name| is_secret_header(name)) {
            return Err(EndpointError::SecretHeader(name.clone()));
        }
        headers.extend(authorization(service, settings, token.as_ref())?);
        for (name, value) in &headers {
            let sound = name.parse::<ureq::http::HeaderName>().is_ok()
                && ureq::http::HeaderValue::from_str(value.reveal()).is_ok();
            if !sound {
                return Err(EndpointError::Header(name.clone()));
            }
        }
        if let Some(template) = &settings.template {
            let wrong = |error: minijinja::Error| EndpointError::Template(error.to_string());
            crate::dispatch::encode::template::check(template).map_err(wrong)?;
        }
        let default_type = if service == Service::Elasticsearch { "application/x-ndjson" } else { "application/json" };
        Ok(Self {
            service,
            url,
            others,
            token,
            headers,
            client: HttpClient::new(&settings.http)?,
            content_type: settings.content_type.clone().unwrap_or_else(|| default_type.to_owned()),
            standing: BTreeMap::new(),
            repeated_at: Timestamp::EPOCH,
        })
    }

    /// Where a delivery goes.
    fn target(&self, delivery: &Delivery) -> String {
        let url = self.url.reveal().trim_end_matches('/');
        let token = self.token.as_ref().map_or("", Secret::reveal);
        match self.service {
            Service::Elasticsearch => format!("{url}/_bulk"),
            Service::SplunkHec => format!("{url}/services/collector/event"),
            Service::Loki => format!("{url}/loki/api/v1/push"),
            Service::Alertmanager => format!("{url}{ALERTS}"),
            Service::Gotify => format!("{url}/message"),
            Service::Telegram => format!("{url}/bot{token}/sendMessage"),
            Service::Opsgenie if delivery.kind.ends() => {
                let alias: String = delivery.key.bytes().map(percent_encoded).collect();
                format!("{url}/v2/alerts/{alias}/close?identifierType=alias")
            }
            Service::Opsgenie => format!("{url}/v2/alerts"),
            _ => self.url.reveal().to_owned(),
        }
    }

    fn post(&self, url: &str, body: &[u8], now: Timestamp) -> Result<Response, NotifyError> {
        let mut headers = vec![("Content-Type", self.content_type.as_str())];
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())));
        self.client.post(url, &headers, body, now)
    }

    /// Every member of a cluster gets every alert; one that takes it is enough for now, and the
    /// repetitions bring the others up to date.
    fn post_to_members(&self, body: &[u8], now: Timestamp) -> Result<(), NotifyError> {
        let mut outcomes = Vec::new();
        for member in self.others.iter().chain([&self.url]) {
            let url = format!("{}{ALERTS}", member.reveal().trim_end_matches('/'));
            let outcome = self.post(&url, body, now).and_then(|response| response.verdict(&url));
            if let Err(error) = &outcome {
                tracing::warn!(%error, "a member of the cluster did not take an alert");
            }
            outcomes.push(outcome);
        }
        match outcomes.iter().any(Result::is_ok) {
            true => Ok(()),
            false => outcomes.pop().unwrap_or(Ok(())),
        }
    }

    /// The rendered body with what is a secret or belongs to the moment of sending.
    fn body(&mut self, delivery: &Delivery, now: Timestamp) -> Vec<u8> {
        match (self.service, &self.token) {
            (Service::Pagerduty, Some(key)) => match serde_json::from_slice(&delivery.payload) {
                Ok(Json::Object(mut event)) => {
                    event.insert("routing_key".to_owned(), json!(key.reveal()));
                    Json::Object(event).to_string().into_bytes()
                }
                _ => delivery.payload.to_vec(),
            },
            (Service::Alertmanager, _) => {
                let alerts: Vec<Json> = serde_json::from_slice(&delivery.payload).unwrap_or_default();
                let alerts: Vec<Json> = alerts.into_iter().map(|alert| with_end(alert, now)).collect();
                json!(alerts).to_string().into_bytes()
            }
            _ => delivery.payload.to_vec(),
        }
    }

    fn remember(&mut self, delivery: &Delivery, now: Timestamp) {
        let alerts: Vec<Json> = serde_json::from_slice(&delivery.payload).unwrap_or_default();
        for alert in alerts {
            let labels = alert["labels"].to_string();
            let forget_at = alert.get("endsAt").map(|_| now.after(REPEAT_RESOLVED_FOR));
            if self.standing.len() < MOST_STANDING || self.standing.contains_key(&labels) {
                self.standing.insert(labels, Standing { alert, forget_at });
            }
        }
    }
}

impl Notifier for EndpointOutput {
    fn send(&mut self, delivery: &Delivery, now: Timestamp) -> Result<(), NotifyError> {
        let body = self.body(delivery, now);
        if self.service == Service::Alertmanager {
            self.post_to_members(&body, now)?;
            self.remember(delivery, now);
            return Ok(());
        }
        let url = self.target(delivery);
        let response = self.post(&url, &body, now)?;
        verdict(self.service, &url, &response)
    }

    fn idle(&mut self, now: Timestamp) -> Result<(), NotifyError> {
        if self.service != Service::Alertmanager || now.since(self.repeated_at) < REPEAT_EVERY {
            return Ok(());
        }
        self.repeated_at = now;
        self.standing.retain(|_, standing| standing.forget_at.is_none_or(|at| now < at));
        let alerts: Vec<Json> = self.standing.values().map(|standing| with_end(standing.alert.clone(), now)).collect();
        for some in alerts.chunks(100) {
            self.post_to_members(json!(some).to_string().as_bytes(), now)?;
        }
        Ok(())
    }
}

/// What an answer means; some services say no with a status that says yes.
fn verdict(service: Service, url: &str, response: &Response) -> Result<(), NotifyError> {
    response.verdict(url)?;
    let body: Json = serde_json::from_str(&response.body).unwrap_or_default();
    match service {
        Service::Elasticsearch if body["errors"] == true => {
            let items = body["items"].as_array().cloned().unwrap_or_default();
            let failed: Vec<&Json> = items
                .iter()
                .filter_map(|item| item.as_object()?.values().next())
                // 409: this very document is there already.
                .filter(|result| !matches!(result["status"].as_u64(), Some(200..=299 | 409)))
                .collect();
            let Some(first) = failed.first() else { return Ok(()) };
            let reason = format!("{}: {}", http::redacted(url), first["error"]["reason"]);
            match first["status"].as_u64() {
                Some(429) => Err(NotifyError::Throttled { reason, retry_after: None }),
                Some(400..=499) => Err(NotifyError::permanent(reason)),
                _ => Err(NotifyError::transient(reason)),
            }
        }
        Service::Telegram if body["ok"] == false => {
            Err(NotifyError::permanent(format!("{}: {}", http::redacted(url), body["description"])))
        }
        _ => Ok(()),
    }
}

/// Alertmanager takes an alert as over when it is not repeated in time.
fn with_end(mut alert: Json, now: Timestamp) -> Json {
    if let Json::Object(alert) = &mut alert {
        alert.entry("endsAt").or_insert_with(|| json!(now.after(ALERT_ENDS_AFTER)));
    }
    alert
}

fn authorization(
    service: Service,
    settings: &EndpointSettings,
    token: Option<&Secret>,
) -> Result<Option<(String, Secret)>, EndpointError> {
    let password = SecretPlace { key: "password", file: settings.password_file.as_deref(), ..SecretPlace::default() };
    if let (Some(user), Some(password)) = (&settings.username, password.read()?) {
        let basic = STANDARD.encode(format!("{user}:{}", password.reveal()));
        return Ok(Some(("Authorization".to_owned(), Secret::from(format!("Basic {basic}").as_str()))));
    }
    let scheme = match service {
        Service::SplunkHec => "Splunk",
        Service::Elasticsearch => "ApiKey",
        Service::Opsgenie => "GenieKey",
        Service::Pagerduty | Service::Telegram => return Ok(None),
        Service::Gotify => {
            return Ok(token.map(|token| ("X-Gotify-Key".to_owned(), token.clone())));
        }
        _ => "Bearer",
    };
    let value = token.map(|token| Secret::from(format!("{scheme} {}", token.reveal()).as_str()));
    let tenant = settings.tenant.as_deref().map(|tenant| ("X-Scope-OrgID".to_owned(), Secret::from(tenant)));
    Ok(value.map(|value| ("Authorization".to_owned(), value)).or(tenant))
}

fn check_keys(service: Service, settings: &EndpointSettings) -> Result<(), EndpointError> {
    let given: [(&'static str, bool, &[Service]); 7] = [
        ("urls", !settings.urls.is_empty(), &[Service::Alertmanager]),
        ("index", settings.index.is_some(), &[Service::Elasticsearch, Service::SplunkHec]),
        ("source_type", settings.source_type.is_some(), &[Service::SplunkHec]),
        ("tenant", settings.tenant.is_some(), &[Service::Loki]),
        ("topic", settings.topic.is_some(), &[Service::Ntfy]),
        ("chat_id", settings.chat_id.is_some(), &[Service::Telegram]),
        ("template", settings.template.is_some(), &[Service::Generic]),
    ];
    for (key, is_given, services) in given {
        if is_given && !services.contains(&service) {
            return Err(EndpointError::Meaningless { service: service.name(), key });
        }
        let needed = matches!(key, "topic" | "chat_id" | "template") && services.contains(&service);
        if needed && !is_given {
            return Err(EndpointError::Missing { service: service.name(), key });
        }
    }
    Ok(())
}

fn percent_encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

const ALERTS: &str = "/api/v2/alerts";
/// Alertmanager wants to hear of every alert this often.
const REPEAT_EVERY: Duration = Duration::from_secs(60);
const REPEAT_RESOLVED_FOR: Duration = Duration::from_secs(300);
const ALERT_ENDS_AFTER: Duration = Duration::from_secs(300);
/// Alerts that are repeated; further ones end at Alertmanager five minutes after their last change.
const MOST_STANDING: usize = 10_000;
