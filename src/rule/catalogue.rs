//! Every code that a finding can have, with the longer word about it.
//!
//! Codes are stable: tools and suppressions name them. R00xx the YAML text,
//! R01xx names and types, R02xx the logic of a rule, R03xx overrides, R04xx
//! lint, R05xx tests, R06xx outputs and secrets.

use crate::rule::diagnose::Level::{self, Error, Info, Warning};

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `R0107`.
    pub id: &'static str,
    /// `unknown-field`.
    pub name: &'static str,
    /// How bad it usually is.
    pub level: Level,
    /// The longer word: what it means, why it matters, what to do.
    pub explanation: &'static str,
}

macro_rules! codes {
    ($($constant:ident $id:literal $name:literal $level:ident $explanation:literal)*) => {
        $(#[doc = $explanation] pub static $constant: Code =
            Code { id: $id, name: $name, level: $level, explanation: $explanation };)*

        /// Every code, in order.
        pub static ALL: &[&Code] = &[$(&$constant),*];
    };
}

codes! {
    SYNTAX "R0001" "syntax" Error
        "The text is not YAML. Often an indentation that does not fit, a missing quote, or a colon inside a value that is not quoted."
    TAB "R0002" "tab" Error
        "YAML is indented by spaces only. Set your editor to insert spaces."
    DUPLICATE_KEY "R0003" "duplicate-key" Error
        "A mapping has the same key twice. Most readers let the last one win in silence, so that half of a rule is lost."
    TOO_DEEP "R0004" "too-deep" Error
        "Values are nested deeper than any rule needs. The limit protects the reader."
    TOO_LARGE "R0005" "too-large" Error
        "The file is larger than a rule file should be. Long lists belong in files of their own, which have no such limit."
    SEVERAL_DOCUMENTS "R0006" "several-documents" Error
        "A file holds one YAML document. `---` in the middle starts another one, which some readers would ignore."
    MERGE_KEY "R0007" "merge-key" Error
        "Merge keys (`<<: *name`) are not part of YAML 1.2 and mean different things to different readers. Macros and lists do the same in the open."
    ALIAS "R0008" "alias" Error
        "An alias (`*name`) stands inside the value that it names, or aliases stand for too many values. Macros and lists are shared without copying."
    TAG "R0009" "tag" Error
        "YAML tags (`!!binary`, `!ruby/object`) are not read: they change what a value is behind the reader's back."
    NOT_TEXT "R0010" "not-text" Error
        "The file has bytes that are not UTF-8 text, or control characters. It is perhaps UTF-16, or not a rule file at all."
    UNQUOTED_BRACES "R0011" "unquoted-braces" Error
        "A template such as `{{ exe }}` must be quoted, because a brace starts a mapping in YAML."
    LEADING_STAR "R0012" "leading-star" Error
        "A plain value that starts with `*` is an alias in YAML. Quote patterns: \"*.example.com\"."
    RESERVED_START "R0013" "reserved-start" Error
        "A plain value cannot start with this character; YAML keeps it for itself. Quote the value."
    WORD_READ_AS_BOOLEAN "R0014" "word-read-as-boolean" Warning
        "Readers of YAML 1.1 take `yes`, `no`, `on`, `off` for truth values, and every reader takes `true`, `false` and `null` for something else than a text. Quote such words: country \"NO\"."
    SEXAGESIMAL "R0015" "sexagesimal" Error
        "Readers of YAML 1.1 take `1:30` for the number 90. Write durations with units (`1h30m`) and quote times of day (\"22:00-06:00\")."
    OCTAL "R0016" "octal" Error
        "A number with a leading zero is octal to some readers and decimal to others. Write it without the zero."
    KEY_NOT_TEXT "R0017" "key-not-text" Error
        "A key of a mapping must be a text; this one is a list or a mapping."
    ADDRESS_READ_AS_MAPPING "R0018" "address-read-as-mapping" Error
        "Inside `[...]` a colon before a comma starts a mapping, so an address such as `2001:db8::` must be quoted there."
    SECOND_READER "R0019" "second-reader" Error
        "Every file must be accepted by two YAML readers, so that it means the same to Egret and to the tools around it. One of them refuses it."
    BLOCK_INDICATOR "R0021" "block-indicator" Error
        "`>` and `|` at the start of a plain value begin a block of text. Comparisons are written with words: `{gt: 5MB}`."
    NOT_A_RULE_FILE "R0100" "not-a-rule-file" Error
        "The file is no rule file: it is empty, a list, or has no key that a rule file has."
    UNKNOWN_KEY "R0101" "unknown-key" Error
        "This mapping has no such key. Keys are never ignored: a mistyped one would switch a condition off in silence."
    WRONG_SHAPE "R0102" "wrong-shape" Error
        "A value of another kind is needed here: a text, a number, a list, or a mapping."
    MISSING_KEY "R0103" "missing-key" Error
        "This mapping needs a key that it does not have."
    CONFIG_FILE "R0104" "config-file" Error
        "This is a configuration file, not a rule file. Check it with `egret check --config FILE`."
    UNKNOWN_FIELD "R0107" "unknown-field" Error
        "There is no such flow field. `egret fields` lists all of them."
    UNKNOWN_OPERATOR "R0108" "unknown-operator" Error
        "This type of field has no such operator. `egret fields operators` lists all of them, and the JSON form of `egret fields` says which each field takes."
    UNKNOWN_METRIC "R0109" "unknown-metric" Error
        "There is no such metric. Metrics measure a group over a window: `bytes_out`, `distinct(dst.ip)`, `upload_ratio`."
    UNKNOWN_VALUE "R0110" "unknown-value" Error
        "The value is none of those that are possible here."
    UNKNOWN_NAME "R0112" "unknown-name" Error
        "There is no list or macro of this name in any of the files, and no built-in one."
    UNKNOWN_SCHEDULE "R0113" "unknown-schedule" Error
        "There is no schedule of this name in any of the files."
    UNKNOWN_OUTPUT "R0115" "unknown-output" Error
        "The configuration has no output of this name, so that nobody would hear the alert."
    UNKNOWN_TECHNIQUE "R0117" "unknown-technique" Error
        "ATT&CK has no technique of this id (enterprise matrix)."
    OLD_TECHNIQUE "R0118" "old-technique" Warning
        "ATT&CK has revoked or deprecated this technique."
    LIST_TYPE "R0120" "list-type" Error
        "A list of one type is used where another type is needed: networks cannot match executables."
    BAD_LIST_FILE "R0122" "bad-list-file" Error
        "The file of a list cannot be read, has nothing usable, or has more items than `max_items`."
    BAD_LIST_ITEM "R0124" "bad-list-item" Warning
        "A line of a list file is not an item of the list's type; it is skipped."
    VERSION "R0125" "version" Error
        "The version of the rule language must be 1."
    BAD_NAME "R0126" "bad-name" Error
        "Ids and names are slugs: lower-case letters, digits and `-`; lists, macros and schedules may have `_` and `.` as well."
    BAD_LITERAL "R0130" "bad-literal" Error
        "A size, rate, duration, network, domain, pattern, number, time or date cannot be read."
    BAD_TEMPLATE "R0140" "bad-template" Error
        "The summary is not a template that can be rendered: `{{ exe }} sent {{ bytes_out | bytes }}`."
    NO_TRIGGER "R0201" "no-trigger" Error
        "A rule needs one trigger: `when` with `window`, `each`, `first_seen`, `baseline` or `budget`."
    SEVERAL_TRIGGERS "R0202" "several-triggers" Error
        "A rule has exactly one trigger. Make two rules of it."
    NO_WINDOW "R0203" "no-window" Error
        "A condition of `when` needs a window: the rule's own `window`, or one of the condition."
    NO_FLOOR "R0205" "no-floor" Error
        "A condition that compares a metric with its own past needs `floor`: five times nearly nothing is still nearly nothing."
    UNSATISFIABLE "R0210" "unsatisfiable" Error
        "The condition can never hold, so the rule can never fire."
    DUPLICATE_ID "R0212" "duplicate-id" Error
        "Two rules, lists, macros or schedules have the same name. The order of files must not decide which one counts."
    RESOLVE_ABOVE_THRESHOLD "R0215" "resolve-above-threshold" Error
        "The level at which the alert resolves lies above the level at which it fires, so that it would resolve while it still fires."
    WINDOW_LIMIT "R0220" "window-limit" Error
        "A window is shorter than one second, longer than 31 days, or not a whole number of seconds."
    CYCLE "R0225" "cycle" Error
        "A macro or list contains itself, directly or through others."
    NESTING "R0226" "nesting" Error
        "Conditions are nested more than 16 deep. A macro gives a part a name, and the rule can be read again."
    EXCEPTION_SHAPE "R0230" "exception-shape" Error
        "The values of an exception are tuples: as many values as the exception has fields."
    OVERRIDE_TARGET "R0301" "override-target" Error
        "An override names a rule, list or tag that no file has."
    OVERRIDE_PATH "R0302" "override-path" Error
        "An override sets something that its target cannot have."
    UNUSED_LIST "R0401" "unused-list" Warning
        "No rule uses this list. It is perhaps misspelt where it was meant, so that a rule looks at something else."
    UNUSED_MACRO "R0402" "unused-macro" Warning
        "No rule uses this macro. It is perhaps misspelt where it was meant, so that a rule looks at something else."
    UNUSED_SCHEDULE "R0403" "unused-schedule" Warning
        "No rule uses this schedule. It is perhaps misspelt where it was meant, so that a rule is in force at other times."
    DUPLICATE_ITEM "R0404" "duplicate-item" Warning
        "A list has the same item twice. It means nothing, and the next person wonders which of the two to change."
    UNSORTED_LIST "R0405" "unsorted-list" Info
        "The items of a list are out of order, which hides doubles and gaps from whoever changes it. Order has no meaning for a list; with a comment between its items, it is taken to have one for you."
    EXCEPTION_EVERYTHING "R0411" "exception-everything" Warning
        "The exception lets everything pass, so the rule can never fire."
    EXPIRED "R0412" "expired" Warning
        "The exception has expired and is ignored."
    SHADOWED_EXCEPTION "R0413" "shadowed-exception" Warning
        "The exception never applies: another one of the rule lets the same flows pass already, or the rule does not look at such flows."
    NO_TEST "R0415" "no-test" Info
        "No test names this rule. A rule without a test is a guess."
    NEGATIVE_ON_MISSING "R0421" "negative-on-missing" Info
        "A negative test holds for flows whose field is missing: an unknown domain is not an approved domain. Add `exists: true` if that is not meant."
    TOTAL_IN_EXFILTRATION "R0425" "total-in-exfiltration" Warning
        "`bytes_total` counts downloads as well; a rule about exfiltration should count `bytes_out` or `payload_out`."
    UNBOUNDED_GROUP "R0430" "unbounded-group" Warning
        "The groups of this rule multiply with every flow, so that `max_groups` throws groups away and no sum ever grows."
    REGEX_WITHOUT_LITERAL "R0431" "regex-without-literal" Info
        "The expression has no fixed text to look for first, which makes it slow. A glob, prefix or suffix is faster and says more."
    STAR_IN_EQUALITY "R0432" "star-in-equality" Warning
        "A bare value of a text field must be equal; a star in it is a star. Use `like` for globs."
    RELATIVE_PATH "R0433" "relative-path" Warning
        "Paths of executables are absolute, so a pattern that starts with neither `/` nor `*` matches nothing."
    FIELD_NOT_SET "R0435" "field-not-set" Warning
        "Nothing on this host sets the field, so that it is missing in every flow: a positive test never holds, and a group has no value for it. `egret fields` says what it needs."
    NO_OWNER "R0440" "no-owner" Info
        "Nobody is named to look after this rule, so that nobody is asked when it fires in vain."
    NO_RUNBOOK "R0441" "no-runbook" Info
        "The rule says neither in `note` nor in `references` what to do when it fires."
    SHORT_WINDOW "R0445" "short-window" Warning
        "The window is not longer than one bucket, so that what it sums changes in steps of its own length."
    BAD_TEST "R0501" "bad-test" Error
        "A test of a rule cannot be run: it names an unknown rule, or expects something that cannot be."
    TEST_FAILED "R0502" "test-failed" Error
        "The rules did something else than the test expects."
    CONFIG_VALUE "R0601" "config-value" Error
        "A value of the configuration is not one that its setting can have."
    SECRET_READABLE "R0602" "secret-readable" Warning
        "Everybody on this host can read the file of a secret. `chmod 600` it."
    PLAIN_HTTP "R0605" "plain-http" Warning
        "Alerts leave over http without TLS: whoever listens learns what you look for."
    PRESET_LIMIT "R0610" "preset-limit" Warning
        "The service takes fewer messages than `rate` allows, and answers the rest with errors. Excess is gathered into groups, so a lower rate loses nothing."
}

/// The code of an id or of a name, whatever the case.
pub fn find(text: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|code| code.id.eq_ignore_ascii_case(text) || code.name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_unique() {
        assert!(ALL.windows(2).all(|pair| pair[0].id < pair[1].id), "sorted and without a double");
    }

    #[test]
    fn a_code_is_found_by_id_and_by_name() {
        assert_eq!(find("r0107"), Some(&UNKNOWN_FIELD));
        assert_eq!(find("unknown-field"), Some(&UNKNOWN_FIELD));
        assert_eq!(find("R9999"), None);
    }
}
