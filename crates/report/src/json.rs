//! The record as JSON, and the schema that JSON follows.

use compare_spec::Record;

/// A record as indented JSON with a line end at its end: what `read` reads.
pub fn json(record: &Record) -> String {
    let mut text = serde_json::to_string_pretty(record).expect("a record has string keys only");
    text.push('\n');
    text
}

/// The JSON schema (draft 2020-12) of a record, indented, with a line end at its end.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Record);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema has string keys only");
    text.push('\n');
    text
}
