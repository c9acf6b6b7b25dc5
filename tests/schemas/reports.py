"""Reads the reports of `egret check` as the programs do that they are written for.

Takes one JSON document: the path of SARIF's schema, and the reports as text. Prints as JSON what was
read from each: [code, level, file, line, column] of every finding, or for JUnit, which has no places,
[name, file, whether it failed].
"""

import json
import pathlib
import sys
import urllib.parse

import jsonschema
import junitparser

question = json.load(sys.stdin)

# As documented for GitLab's code quality artifacts.
GITLAB = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    # GitLab compares it with the names in its repository.
                    "path": {"type": "string", "pattern": r"^(?!\./|/)"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


def sarif(text):
    log = json.loads(text)
    schema = json.loads(pathlib.Path(question["sarif_schema"]).read_text())
    jsonschema.Draft4Validator(schema).validate(log)
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    found = []
    for result in run["results"]:
        assert result["ruleId"] in rules, result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        uri = place["artifactLocation"]["uri"]
        assert urllib.parse.quote(urllib.parse.unquote(uri), safe="/") == uri, uri
        region = place["region"]
        assert (region["endLine"], region["endColumn"]) >= (region["startLine"], region["startColumn"]), region
        path = urllib.parse.unquote(urllib.parse.urlparse(uri).path)
        found.append([result["ruleId"], result["level"], path, region["startLine"], region["startColumn"]])
    return found


def gitlab(text):
    findings = json.loads(text)
    jsonschema.Draft202012Validator(GITLAB).validate(findings)
    fingerprints = [finding["fingerprint"] for finding in findings]
    assert len(set(fingerprints)) == len(fingerprints), "GitLab shows findings of one fingerprint once"
    return [
        [finding["check_name"], finding["severity"], finding["location"]["path"], finding["location"]["lines"]["begin"]]
        for finding in findings
    ]


def junit(text):
    report = junitparser.JUnitXml.fromstring(text.encode())
    suites = list(report)
    told = [(suite.tests, suite.failures, suite.errors) for suite in suites]
    for suite in suites:
        suite.update_statistics()
    assert told == [(suite.tests, suite.failures, suite.errors) for suite in suites], told
    assert report.tests == sum(suite.tests for suite in suites), "the whole has as many cases as its parts"
    assert report.failures == sum(suite.failures for suite in suites)
    return [[case.name, suite.name, not case.is_passed] for suite in suites for case in suite]


readers = {"sarif": sarif, "gitlab": gitlab, "junit": junit}
json.dump({name: readers[name](text) for name, text in question["reports"].items()}, sys.stdout)
