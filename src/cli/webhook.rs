//! `egret webhook`: for those who write a receiver.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::dispatch::secret::SecretPlace;
use crate::dispatch::settings::SignatureScheme;
use crate::dispatch::signature::Signer;
use crate::time::Timestamp;

/// What `egret webhook` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check a signature, the body on standard input; without arguments, print a receiver that does
    Verify {
        /// File that holds the secret
        #[arg(long, value_name = "FILE", requires_all = ["id", "timestamp", "signature"])]
        secret_file: Option<PathBuf>,
        /// The header `webhook-id`
        #[arg(long)]
        id: Option<String>,
        /// The header `webhook-timestamp`
        #[arg(long)]
        timestamp: Option<i64>,
        /// The header `webhook-signature`
        #[arg(long)]
        signature: Option<String>,
    },
}

/// Prints the receiver, or checks a signature.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let What::Verify { secret_file, id, timestamp, signature } = &arguments.what;
    let (Some(file), Some(id), Some(timestamp), Some(signature)) = (secret_file, id, timestamp, signature) else {
        anstream::stdout().lock().write_all(RECEIVER.as_bytes())?;
        return Ok(Exit::Fine);
    };
    let place = SecretPlace { key: "secret", file: Some(file), ..SecretPlace::default() };
    let Some(secret) = place.read()? else { bail!("there is no secret") };
    let mut body = Vec::new();
    std::io::stdin().lock().read_to_end(&mut body).context("cannot read the body")?;
    let signer = Signer::new(SignatureScheme::Standard, &[secret])?;
    let ours = signer.headers(id, Timestamp::from_secs(*timestamp), &body);
    let fits = ours
        .iter()
        .any(|(name, value)| *name == "webhook-signature" && signature.split(' ').any(|theirs| theirs == value));
    if fits {
        writeln!(anstream::stdout().lock(), "the signature fits")?;
        return Ok(Exit::Fine);
    }
    terminal::error("the signature does not fit");
    Ok(Exit::Findings)
}

const RECEIVER: &str = r#"# A receiver that takes only what Egret signed (Standard Webhooks). Python, nothing to install.
import base64, hashlib, hmac, http.server, json, sys, time

SECRET = open(sys.argv[1]).read().strip()
KEY = base64.b64decode(SECRET[6:]) if SECRET.startswith("whsec_") else SECRET.encode()
seen = set()  # the same webhook-id is the same delivery, sent again

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        name, sent = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{name}.{sent}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        fits = any(hmac.compare_digest(wanted, one) for one in self.headers["webhook-signature"].split())
        if not fits or abs(time.time() - int(sent)) > 300:
            return self.send_error(401)
        if name not in seen:
            seen.add(name)
            document = json.loads(body)
            print(document["type"], document["data"].get("summary", ""), flush=True)
        self.send_response(204)
        self.end_headers()

http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Receiver).serve_forever()
"#;
