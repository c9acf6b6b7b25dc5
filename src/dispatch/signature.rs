//! Signatures of webhook bodies: Standard Webhooks, and two others that receivers know.
//!
//! Pure: the time is an argument.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::Ed25519KeyPair;

use crate::dispatch::secret::Secret;
use crate::dispatch::settings::SignatureScheme;
use crate::time::Timestamp;

/// Signs bodies.
pub struct Signer {
    scheme: SignatureScheme,
    keys: Vec<Key>,
}

enum Key {
    Hmac(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
}

/// Why a secret is no key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Not base64.
    #[error("what follows `{0}` in the secret is no base64")]
    Base64(&'static str),
    /// Not a key.
    #[error("the secret is no Ed25519 key: `whsk_` and the base64 of 32 or 64 bytes")]
    Ed25519,
}

impl Signer {
    /// Signs with each of the secrets, the current one first.
    pub fn new(scheme: SignatureScheme, secrets: &[Secret]) -> Result<Self, SignatureError> {
        Ok(Self { scheme, keys: secrets.iter().map(|secret| key(scheme, secret)).collect::<Result<_, _>>()? })
    }

    /// The headers that prove a body.
    pub fn headers(&self, id: &str, now: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
        let seconds = now.as_secs().to_string();
        match self.scheme {
            SignatureScheme::Standard | SignatureScheme::Ed25519 => {
                let content = [id.as_bytes(), b".", seconds.as_bytes(), b".", body].concat();
                let signatures: Vec<String> = self
                    .keys
                    .iter()
                    .map(|key| match key {
                        Key::Hmac(_) => format!("v1,{}", STANDARD.encode(key.sign(&content))),
                        Key::Ed25519(_) => format!("v1a,{}", STANDARD.encode(key.sign(&content))),
                    })
                    .collect();
                let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds)];
                if !signatures.is_empty() {
                    headers.push(("webhook-signature", signatures.join(" ")));
                }
                headers
            }
            SignatureScheme::Github => {
                let sign = |key: &Key| ("X-Hub-Signature-256", format!("sha256={}", hex(&key.sign(body))));
                self.keys.iter().take(1).map(sign).chain([("X-Egret-Delivery", id.to_owned())]).collect()
            }
            SignatureScheme::Grafana => {
                let content = [seconds.as_bytes(), b":", body].concat();
                let sign = |key: &Key| ("X-Grafana-Alerting-Signature", hex(&key.sign(&content)));
                let time = ("X-Grafana-Alerting-Signature-Timestamp", seconds.clone());
                self.keys.iter().take(1).map(sign).chain([time, ("X-Egret-Delivery", id.to_owned())]).collect()
            }
        }
    }
}

impl Key {
    fn sign(&self, content: &[u8]) -> Vec<u8> {
        match self {
            Self::Hmac(key) => hmac::sign(key, content).as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(content).as_ref().to_vec(),
        }
    }
}

/// `whsec_` announces base64 of an HMAC key, `whsk_` that of an Ed25519 key; anything else is the key itself.
fn key(scheme: SignatureScheme, secret: &Secret) -> Result<Key, SignatureError> {
    let text = secret.reveal();
    if scheme == SignatureScheme::Ed25519 {
        let encoded = text.strip_prefix("whsk_").ok_or(SignatureError::Ed25519)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SignatureError::Base64("whsk_"))?;
        let seed = bytes.get(..32).ok_or(SignatureError::Ed25519)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SignatureError::Ed25519)?;
        return Ok(Key::Ed25519(Box::new(pair)));
    }
    let bytes = match text.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| SignatureError::Base64("whsec_"))?,
        None => text.as_bytes().to_vec(),
    };
    Ok(Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(scheme: SignatureScheme, secrets: &[&str], body: &str) -> Vec<(&'static str, String)> {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
        let now = Timestamp::from_secs(1_614_265_330);
        Signer::new(scheme, &secrets).unwrap().headers("msg_p5jXN8AQM9LWM0D4loKWxJek", now, body.as_bytes())
    }

    #[test]
    fn the_standard_webhooks_vector() {
        // From the specification's own test suite.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let made = headers(SignatureScheme::Standard, &[secret], r#"{"test": 2432232314}"#);
        assert_eq!(made[1], ("webhook-timestamp", "1614265330".to_owned()));
        assert_eq!(made[2], ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()));
    }

    #[test]
    fn a_secret_in_rotation_signs_beside_the_new_one() {
        let made = headers(SignatureScheme::Standard, &["new", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "{}");
        let signatures: Vec<&str> = made[2].1.split(' ').collect();
        assert_eq!(signatures.len(), 2);
        assert!(signatures.iter().all(|signature| signature.starts_with("v1,")));
        assert_ne!(signatures[0], signatures[1]);
    }

    #[test]
    fn github_signs_the_body_alone() {
        // From GitHub's documentation, "Testing the webhook payload validation".
        let made = headers(SignatureScheme::Github, &["It's a Secret to Everybody"], "Hello, World!");
        let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(made[0], ("X-Hub-Signature-256", expected.to_owned()));
    }

    #[test]
    fn ed25519_signatures_verify() {
        let seed = [7u8; 32];
        let secret = format!("whsk_{}", STANDARD.encode(seed));
        let made = headers(SignatureScheme::Ed25519, &[&secret], "body");
        let signature = STANDARD.decode(made[2].1.strip_prefix("v1a,").unwrap()).unwrap();
        let public =
            ring::signature::KeyPair::public_key(&Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()).to_owned();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public)
            .verify(b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.body", &signature)
            .unwrap();
    }

    #[test]
    fn wrong_secrets_are_told() {
        let new = |scheme, secret: &str| Signer::new(scheme, &[Secret::from(secret)]).err();
        assert_eq!(new(SignatureScheme::Standard, "whsec_***"), Some(SignatureError::Base64("whsec_")));
        assert_eq!(new(SignatureScheme::Ed25519, "abc"), Some(SignatureError::Ed25519));
    }
}
