//! `egret lists match` and `egret geo`, byte for byte.

use assert_cmd::Command;

use crate::support::data;

#[test]
fn lists_match_answers_every_line() {
    let Some(list) = data::path("lists/spamhaus_drop.txt") else { return };
    let lines = "1.10.16.5\n8.8.8.8\n2001:db8::1\n";
    let mut command = egret(&["lists", "match"]);
    command
        .arg(&list)
        .write_stdin(lines)
        .assert()
        .success()
        .stdout("1.10.16.5 true\n8.8.8.8 false\n2001:db8::1 false\n");
    let mut command = egret(&["lists", "match", "--entry"]);
    command.arg(&list).write_stdin("1.10.16.5").assert().success().stdout("1.10.16.5 true 1.10.16.0/20\n");
    let mut command = egret(&["lists", "match"]);
    let wrong = command.arg(&list).write_stdin("nonsense\n8.8.8.8\n").assert().code(1).stdout("8.8.8.8 false\n");
    wrong.stderr("error: `nonsense` is no address, domain or AS number\n");
}

#[test]
fn lists_match_refuses_what_is_no_list() {
    let mut command = egret(&["lists", "match", "/dev/null/absent"]);
    command
        .write_stdin("")
        .assert()
        .code(2)
        .stderr("error: cannot read `/dev/null/absent`: Not a directory (os error 20)\n");
}

#[test]
fn geo_answers_every_line_with_an_object() {
    let Some(asn) = data::path("mmdb/GeoLite2-ASN-Test.mmdb") else { return };
    let Some(city) = data::path("mmdb/GeoIP2-City-Test.mmdb") else { return };
    let mut command = egret(&["geo", "--db"]);
    let answered = command.arg(&asn).arg("--db").arg(&city).write_stdin("23.32.0.1\n2a02:d240::1\n10.0.0.1\n");
    answered.assert().success().stdout(concat!(
        "{\"ip\":\"23.32.0.1\",\"country\":null,\"asn\":35994,\"as_org\":\"Akamai Technologies, Inc.\"}\n",
        "{\"ip\":\"2a02:d240::1\",\"country\":\"BY\",\"asn\":null}\n",
        "{\"ip\":\"10.0.0.1\",\"country\":null,\"asn\":null}\n",
    ));
}

#[test]
fn geo_says_which_database_is_corrupt_and_why() {
    let Some(file) = data::path("mmdb/bad-libmaxminddb-corrupt-search-tree.mmdb") else { return };
    let mut command = egret(&["geo", "--db"]);
    let refused = command.arg(&file).write_stdin("1.1.1.1\n").assert().code(2).stdout("");
    let message = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(message.contains("corrupt-search-tree.mmdb`: the MaxMind database is corrupt: "), "{message}");
}

fn egret(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command.args(arguments);
    command
}
