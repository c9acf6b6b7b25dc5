//! Alerts by mail, over `lettre`'s blocking SMTP client.
//!
//! Each recipient has its own outcome: whoever the server takes gets the mail,
//! whoever it puts off is tried again alone, whoever it refuses is given up.

use std::time::Duration;

use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, Identity, SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};

use crate::alert::Delivery;
use crate::dispatch::encode::email::Envelope;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::secret::{Secret, SecretError, SecretPlace};
use crate::dispatch::settings::{EmailSettings, SmtpAuth, SmtpSecurity};
use crate::time::Timestamp;

/// Sends each delivery as one mail.
pub struct EmailOutput {
    server: (String, u16),
    security: SmtpSecurity,
    tls: TlsParameters,
    credentials: Option<Credentials>,
    mechanisms: Vec<Mechanism>,
    envelope: Envelope,
    timeout: Duration,
    connection: Option<SmtpConnection>,
}

/// Why a mail output cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// An address that is none.
    #[error("`{0}` is no mail address")]
    Address(String),
    /// A server without a port, or with a wrong one.
    #[error("`{0}` is no mail server such as `smtp.example.org:587`")]
    Server(String),
    /// Nobody to send to.
    #[error("`to` names nobody")]
    Nobody,
    /// Passwords and alerts in the clear.
    #[error("`security: none` sends everything in the clear; `allow_insecure: true` permits it")]
    Insecure,
    /// The password.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A user without a password, or the other way round.
    #[error("`username` and a password belong together")]
    HalfOfAPair,
    /// A certificate file.
    #[error("cannot read `{path}`")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS.
    #[error("cannot set up TLS")]
    Tls(#[source] lettre::transport::smtp::Error),
}

impl EmailOutput {
    /// An output that connects with its first delivery.
    pub fn new(settings: &EmailSettings) -> Result<Self, EmailError> {
        let server = server(&settings.smtp)?;
        let security = security(settings, server.1)?;
        let place = SecretPlace {
            key: "password",
            file: settings.password_file.as_deref(),
            env: settings.password_env.as_deref(),
            credential: settings.password_credential.as_deref(),
        };
        let credentials = match (&settings.username, place.read()?) {
            (Some(user), Some(password)) => Some(credentials(user, &password)),
            (None, None) => None,
            _ => return Err(EmailError::HalfOfAPair),
        };
        let mechanisms = match settings.auth {
            None => vec![Mechanism::Plain, Mechanism::Login],
            Some(SmtpAuth::Plain) => vec![Mechanism::Plain],
            Some(SmtpAuth::Login) => vec![Mechanism::Login],
            Some(SmtpAuth::Xoauth2) => vec![Mechanism::Xoauth2],
        };
        Ok(Self {
            tls: tls_parameters(settings, &server.0)?,
            server,
            security,
            credentials,
            mechanisms,
            envelope: envelope(settings)?,
            timeout: settings.timeout,
            connection: None,
        })
    }

    fn connect(&self) -> Result<SmtpConnection, NotifyError> {
        let hello = ClientId::default();
        let tls_at_once = (self.security == SmtpSecurity::Tls).then_some(&self.tls);
        let server = (self.server.0.as_str(), self.server.1);
        let mut connection = SmtpConnection::connect(server, Some(self.timeout), &hello, tls_at_once, None)
            .map_err(|error| self.failure(&error))?;
        if self.security == SmtpSecurity::Starttls {
            if !connection.can_starttls() {
                connection.abort();
                return Err(NotifyError::misconfigured(format!("{} does not offer STARTTLS", self.server.0)));
            }
            connection.starttls(&self.tls, &hello).map_err(|error| self.failure(&error))?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(&self.mechanisms, credentials).map_err(|error| match error.is_transient() {
                true => self.failure(&error),
                false => NotifyError::misconfigured(format!("{} refuses the login: {}", self.server.0, chain(&error))),
            })?;
        }
        Ok(connection)
    }

    /// One mail to those of the recipients that still need it.
    fn transact(&self, connection: &mut SmtpConnection, delivery: &Delivery) -> Result<(), NotifyError> {
        let mut options = Vec::new();
        let recipients = self.recipients(delivery);
        let non_ascii =
            recipients.iter().chain([&self.envelope.from.email]).any(|address| !address.to_string().is_ascii());
        if non_ascii {
            options.push(MailParameter::SmtpUtfEight);
        }
        if !delivery.payload.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let from = self.envelope.from.email.clone();
        connection.command(Mail::new(Some(from), options)).map_err(|error| self.failure(&error))?;
        let mut put_off = Vec::new();
        let mut refused: Vec<(Address, String)> = Vec::new();
        let mut taken = Vec::new();
        for recipient in recipients {
            match connection.command(Rcpt::new(recipient.clone(), Vec::new())) {
                Ok(_) => taken.push(recipient),
                Err(error) if error.is_permanent() => refused.push((recipient, chain(&error))),
                Err(error) if error.is_transient() => put_off.push((recipient, chain(&error))),
                Err(error) => return Err(self.failure(&error)),
            }
        }
        if taken.is_empty() {
            connection.command(Rset).map_err(|error| self.failure(&error))?;
        } else {
            connection.command(Data).map_err(|error| self.failure(&error))?;
            connection.message(&delivery.payload).map_err(|error| self.failure(&error))?;
        }
        outcome(taken.len(), &put_off, &refused)
    }

    fn recipients(&self, delivery: &Delivery) -> Vec<Address> {
        let wanted = |address: &Address| {
            delivery.remaining.is_empty() || delivery.remaining.iter().any(|left| *left == address.to_string())
        };
        self.envelope.to.iter().map(|mailbox| mailbox.email.clone()).filter(wanted).collect()
    }

    /// Whatever has no code of 5xx may work later: time-outs and resets look alike here.
    fn failure(&self, error: &lettre::transport::smtp::Error) -> NotifyError {
        let reason = format!("{}: {}", self.server.0, chain(error));
        match error.status().map(u16::from) {
            Some(552 | 523) => NotifyError::TooLarge { reason },
            Some(530 | 534 | 535 | 538 | 550 | 551 | 553) if error.is_permanent() => NotifyError::misconfigured(reason),
            Some(_) if error.is_permanent() => NotifyError::permanent(reason),
            _ if reason.contains("certificate") || reason.contains(NO_SUCH_HOST) => NotifyError::misconfigured(reason),
            _ => NotifyError::transient(reason),
        }
    }
}

impl Notifier for EmailOutput {
    fn send(&mut self, delivery: &Delivery, _now: Timestamp) -> Result<(), NotifyError> {
        let kept = self.connection.take().and_then(|mut connection| {
            let usable = !connection.has_broken() && connection.test_connected();
            usable.then_some(connection)
        });
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let outcome = self.transact(&mut connection, delivery);
        match &outcome {
            // After anything unclear the next mail gets a new connection.
            Err(NotifyError::Transient { .. } | NotifyError::Misconfigured { .. } | NotifyError::TooLarge { .. }) => {
                connection.abort();
            }
            _ => self.connection = Some(connection),
        }
        outcome
    }

    fn idle(&mut self, _now: Timestamp) -> Result<(), NotifyError> {
        if let Some(mut connection) = self.connection.take() {
            // The mail is with the server already; how it says goodbye changes nothing.
            let _farewell = connection.quit();
        }
        Ok(())
    }
}

/// Who writes to whom, as the settings say.
pub fn envelope(settings: &EmailSettings) -> Result<Envelope, EmailError> {
    let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|_| EmailError::Address(text.clone()));
    if settings.to.is_empty() {
        return Err(EmailError::Nobody);
    }
    Ok(Envelope { from: mailbox(&settings.from)?, to: settings.to.iter().map(mailbox).collect::<Result<_, _>>()? })
}

fn server(text: &str) -> Result<(String, u16), EmailError> {
    let wrong = || EmailError::Server(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port.parse().map_err(|_| wrong())?))
}

fn security(settings: &EmailSettings, port: u16) -> Result<SmtpSecurity, EmailError> {
    match settings.security {
        Some(SmtpSecurity::None) if !settings.allow_insecure => Err(EmailError::Insecure),
        Some(security) => Ok(security),
        None if port == 465 => Ok(SmtpSecurity::Tls),
        None => Ok(SmtpSecurity::Starttls),
    }
}

fn credentials(user: &str, password: &Secret) -> Credentials {
    Credentials::new(user.to_owned(), password.reveal().to_owned())
}

fn tls_parameters(settings: &EmailSettings, host: &str) -> Result<TlsParameters, EmailError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| EmailError::File { path: path.display().to_string(), source })
    };
    let name = settings.tls.server_name.clone().unwrap_or_else(|| host.to_owned());
    let mut builder = TlsParameters::builder(name);
    if let Some(path) = &settings.tls.ca_file {
        builder = builder.certificate_store(CertificateStore::None);
        for certificate in split_pem(&read(path)?) {
            builder = builder.add_root_certificate(Certificate::from_pem(&certificate).map_err(EmailError::Tls)?);
        }
    }
    if let (Some(chain), Some(key)) = (&settings.tls.certificate_file, &settings.tls.key_file) {
        crate::dispatch::secret::refuse_readable(key).map_err(EmailError::Secret)?;
        builder = builder.identify_with(Identity::from_pem(&read(chain)?, &read(key)?).map_err(EmailError::Tls)?);
    }
    builder.build().map_err(EmailError::Tls)
}

/// `lettre` reads one certificate of a file.
fn split_pem(pem: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(pem);
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END).filter(|part| part.contains(END)).map(|part| part.as_bytes().to_vec()).collect()
}

fn outcome(taken: usize, put_off: &[(Address, String)], refused: &[(Address, String)]) -> Result<(), NotifyError> {
    let reasons: Vec<String> =
        refused.iter().chain(put_off).map(|(address, reason)| format!("{address}: {reason}")).collect();
    let reason = reasons.join("; ");
    let addresses = |list: &[(Address, String)]| list.iter().map(|(address, _)| address.to_string()).collect();
    match (taken, put_off, refused) {
        (_, [], []) => Ok(()),
        (0, [], _) => Err(NotifyError::Permanent { reason }),
        _ => Err(NotifyError::Partial { reason, remaining: addresses(put_off), refused: addresses(refused) }),
    }
}

/// What the resolver says of a name that does not exist, and not of one that cannot be asked for right now.
pub(super) const NO_SUCH_HOST: &str = "Name or service not known";

/// An error with its causes: `network error: connection refused`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = crate::escape::one_line(error.to_string());
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = crate::escape::one_line(inner.to_string());
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
