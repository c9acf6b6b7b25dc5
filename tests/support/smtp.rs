//! A real mail server (aiosmtpd) that insists on STARTTLS and a password.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::certificates::Certificates;
use crate::support::namespace::Namespace;
use crate::support::process::Running;
use crate::support::rsyslog::{free_port, is_listening};
use crate::support::wait;

/// The user that may send.
pub const USERNAME: &str = "egret";
/// The user's password.
pub const PASSWORD: &str = "feathers and fish";

/// Where Debian's python3 finds Debian's aiosmtpd, whatever other Pythons there are.
const PYTHON: &str = "/usr/bin/python3";

const SERVER: &str = r#"
import base64, json, ssl, sys, threading
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

port, certificate, key, folder, username, password = sys.argv[1:7]

class Handler:
    count = 0
    put_off = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("never"):
            return "550 5.1.1 nobody of that name"
        if address.startswith("later") and address not in Handler.put_off:
            Handler.put_off.add(address)
            return "451 4.3.0 not now"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def auth_XOAUTH2(self, server, args):
        said = base64.b64decode(args[1]).decode()
        return AuthResult(success=said == f"user={username}\x01auth=Bearer {password}\x01\x01")

    async def handle_DATA(self, server, session, envelope):
        Handler.count += 1
        mail = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None,
                "authenticated": bool(session.authenticated),
                "content": envelope.content.decode("utf-8", "surrogateescape")}
        name = f"{folder}/{Handler.count:04}.json"
        with open(name + ".new", "w") as file:
            json.dump(mail, file)
        import os
        os.rename(name + ".new", name)
        return "250 kept"

def authenticator(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == username.encode() and data.password == password.encode()
    return AuthResult(success=good, handled=False)

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
Controller(Handler(), hostname="127.0.0.1", port=int(port), tls_context=context, require_starttls=True,
           auth_required=True, authenticator=authenticator).start()
threading.Event().wait()
"#;

/// One mail as the server took it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub tls: bool,
    pub authenticated: bool,
    pub content: String,
}

/// The server and its port on the loopback address.
pub struct SmtpServer {
    pub port: u16,
    folder: PathBuf,
    running: Running,
}

impl SmtpServer {
    /// Whether aiosmtpd is installed; says so where it is not.
    pub fn is_available() -> bool {
        let found =
            Command::new(PYTHON).args(["-c", "import aiosmtpd"]).output().is_ok_and(|output| output.status.success());
        if !found {
            eprintln!("skipped: python3-aiosmtpd is not installed");
        }
        found
    }

    /// Starts it on the loopback address, of `namespace` where one is given.
    pub fn start(namespace: Option<&Namespace>, directory: &Path, certificates: &Certificates) -> Self {
        let port = free_port();
        let folder = directory.join("mails");
        fs::create_dir_all(&folder).expect("the test's directory is writable");
        let mut command = match namespace {
            Some(namespace) => namespace.command(PYTHON),
            None => Command::new(PYTHON),
        };
        command.arg("-c").arg(SERVER).arg(port.to_string());
        command.args([&certificates.certificate, &certificates.key, &folder]).args([USERNAME, PASSWORD]);
        let running = Running::start("smtp", command, directory);
        let mut server = Self { port, folder, running };
        wait::until("the mail server to listen", || {
            server.running.assert_alive();
            is_listening(server.running.pid(), server.port).then_some(())
        });
        server
    }

    /// The mails that came so far, oldest first.
    pub fn received(&self) -> Vec<Mail> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let mail = |path: &PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
        paths.iter().filter_map(mail).collect()
    }
}
