"""Validates documents against JSON Schemas, as somebody else's program reads both.

Reads lines of {"schema": NAME, "body": DOCUMENT}; NAME is a file beside this one, or `ocsf`, which
comes from the package ocsf-json-schema in the folder given as argument. Prints one finding a line.
"""

import json
import pathlib
import sys

import jsonschema

here = pathlib.Path(__file__).parent


CLASSES = {2004: "detection_finding", 4001: "network_activity"}


def schema(name, class_uid):
    if name == "ocsf":
        sys.path.insert(0, sys.argv[1])
        from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

        classes = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=sys.argv[2]))
        return classes.get_class_schema(class_name=CLASSES[class_uid], profiles=["host", "container", "security_control"])
    return json.loads((here / f"{name}.json").read_text())


validators = {}
for line in sys.stdin:
    document = json.loads(line)
    name = document["schema"]
    kind = (name, document["body"].get("class_uid") if name == "ocsf" else None)
    if kind not in validators:
        found = schema(*kind)
        jsonschema.Draft202012Validator.check_schema(found)
        validators[kind] = jsonschema.Draft202012Validator(found)
    for error in validators[kind].iter_errors(document["body"]):
        place = "/".join(str(step) for step in error.absolute_path)
        print(f"{name}: {place}: {error.message[:300]}")
print("done")
