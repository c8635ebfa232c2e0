//! Parquet files. In: the file, and perhaps the name of a column. Out: a document a row, or all its columns.

use super::document::{Document, FIELDS, Object, document, missing, parquet_error};
use crate::error::Result;
use crate::system::{self, Panicked};
use minijinja::value::Value;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Hands every row of a column of texts or conversations to `row`; nothing where it is null.
pub(crate) fn read_column(
    path: &Path,
    file: File,
    field: Option<&str>,
    row: &mut dyn FnMut(Option<Document>),
) -> Result<()> {
    let reader = guarded(path, || SerializedFileReader::new(file))?;
    let schema = reader.metadata().file_metadata().schema();
    let column = column(schema, field).ok_or_else(|| parquet_error(path, no_column(schema, field)))?;
    let fields = vec![Arc::clone(&column)];
    let projection = Type::group_type_builder(schema.name()).with_fields(fields);
    let projection = projection.build().map_err(|e| parquet_error(path, e))?;
    let mut rows = guarded(path, || reader.get_row_iter(Some(projection)))?;
    let mut number = 0;
    while let Some(found) = guarded(path, || rows.next().transpose())? {
        number += 1;
        let value = found.into_columns().into_iter().next().map(|(_, value)| value);
        let parsed = match value {
            None | Some(Field::Null) => Ok(None),
            Some(Field::Str(text)) => Ok(Some(Document::Text(text))),
            // Some writers leave out that a column of bytes is text.
            Some(Field::Bytes(bytes)) => match bytes.as_utf8() {
                Ok(text) => Ok(Some(Document::Text(text.to_owned()))),
                Err(_) => Err(format!("`{}` holds bytes that are not UTF-8 text", column.name())),
            },
            Some(other) => document(column.name(), plain(&other)).map(Some),
        };
        row(parsed.map_err(|e| parquet_error(path, format!("row {number}: {e}")))?);
    }
    Ok(())
}

/// Hands the number of every row, counted from 1, and all its columns to `row`.
pub(crate) fn read_objects(path: &Path, file: File, row: &mut dyn FnMut(usize, Object)) -> Result<()> {
    let reader = guarded(path, || SerializedFileReader::new(file))?;
    let mut rows = guarded(path, || reader.get_row_iter(None))?;
    let mut number = 0;
    while let Some(found) = guarded(path, || rows.next().transpose())? {
        number += 1;
        let json = serde_json::to_value(object(&found));
        match json.map_err(|e| parquet_error(path, format!("row {number}: {e}")))? {
            serde_json::Value::Object(columns) => row(number, columns),
            other => return Err(parquet_error(path, format!("row {number} is {other}"))),
        }
    }
    Ok(())
}

/// What the library reads. It panics on some damaged pages instead of refusing them.
fn guarded<T>(path: &Path, read: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match system::guarded(read) {
        Ok(found) => found.map_err(|e| parquet_error(path, e)),
        Err(Panicked(_)) => Err(parquet_error(path, "its pages contradict each other")),
    }
}

fn column(schema: &Type, field: Option<&str>) -> Option<TypePtr> {
    let named = |name: &str| schema.get_fields().iter().find(|f| f.name() == name).cloned();
    match field {
        Some(field) => named(field),
        None => FIELDS.into_iter().find_map(named),
    }
}

fn no_column(schema: &Type, field: Option<&str>) -> String {
    let names: Vec<String> = schema
        .get_fields()
        .iter()
        .map(|f| format!("`{}`", f.name()))
        .collect();
    format!("{}; it has {}", missing("the file", field), names.join(", "))
}

/// A value as templates know it. Kinds that no conversation has become their text.
fn plain(field: &Field) -> Value {
    match field {
        Field::Null => Value::from(()),
        Field::Bool(v) => Value::from(*v),
        Field::Byte(v) => Value::from(*v),
        Field::Short(v) => Value::from(*v),
        Field::Int(v) => Value::from(*v),
        Field::Long(v) => Value::from(*v),
        Field::UByte(v) => Value::from(*v),
        Field::UShort(v) => Value::from(*v),
        Field::UInt(v) => Value::from(*v),
        Field::ULong(v) => Value::from(*v),
        Field::Float(v) => Value::from(*v),
        Field::Double(v) => Value::from(*v),
        Field::Str(v) => Value::from(v.as_str()),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(field.to_string()),
        },
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(plain).collect(),
        other => Value::from(other.to_string()),
    }
}

fn object(row: &Row) -> Value {
    Value::from_pairs(
        row.get_column_iter()
            .map(|(name, value)| (name.as_str(), plain(value))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::text::DataError;
    use parquet::basic::{BrotliLevel, Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    /// Writes one column of texts; `None` is a null.
    fn write(path: &Path, column: &str, texts: &[Option<&str>], compression: Compression) {
        write_as(path, &format!("{column} (UTF8)"), texts, compression);
    }

    /// As [`write`], with what the schema says of the column.
    fn write_as(path: &Path, column: &str, texts: &[Option<&str>], compression: Compression) {
        let schema = format!("message m {{ OPTIONAL INT64 id; OPTIONAL BYTE_ARRAY {column}; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..texts.len() as i64).collect();
        ids.typed::<parquet::data_type::Int64Type>()
            .write_batch(&numbers, Some(&vec![1; texts.len()]), None)
            .unwrap();
        ids.close().unwrap();
        let mut values = group.next_column().unwrap().unwrap();
        let bytes: Vec<ByteArray> = texts
            .iter()
            .flatten()
            .map(|text| ByteArray::from(*text))
            .collect();
        values
            .typed::<ByteArrayType>()
            .write_batch(&bytes, Some(&levels), None)
            .unwrap();
        values.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    fn read(path: &Path, field: Option<&str>) -> Result<Vec<Document>> {
        let mut rows = Vec::new();
        read_column(path, File::open(path).unwrap(), field, &mut |row| {
            rows.extend(row)
        })?;
        Ok(rows)
    }

    #[test]
    fn texts_of_every_compression() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::BROTLI(BrotliLevel::default()),
            Compression::GZIP(parquet::basic::GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            write(
                &path,
                "text",
                &[Some("a\n"), Some(""), None, Some("日本")],
                compression,
            );
            assert_eq!(read(&path, None).unwrap(), ["a\n", "", "日本"]);
        }
        write(&path, "sentence", &[Some("s")], Compression::SNAPPY);
        assert_eq!(read(&path, Some("sentence")).unwrap(), ["s"]);
        let reason = |field| match read(&path, field) {
            Err(Error::Data(DataError::Parquet { reason, .. })) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason(None).contains("`id`, `sentence`"), "{}", reason(None));
        assert!(reason(Some("x")).contains("no field `x`"));
        assert!(reason(Some("id")).contains("row 1: `id` holds a number"));
    }

    #[test]
    fn conversations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let schema =
            "message m { OPTIONAL GROUP messages (LIST) { REPEATED GROUP list { OPTIONAL GROUP element {
            OPTIONAL BYTE_ARRAY role (UTF8); OPTIONAL BYTE_ARRAY content (UTF8); } } } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        // Two conversations, of two messages and of one.
        for texts in [["user", "assistant", "user"], ["q", "a", "other"]] {
            let mut column = group.next_column().unwrap().unwrap();
            let bytes = texts.map(ByteArray::from);
            column
                .typed::<ByteArrayType>()
                .write_batch(&bytes, Some(&[4, 4, 4]), Some(&[0, 1, 0]))
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let expected = [
            serde_json::json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]),
            serde_json::json!([{"role": "user", "content": "other"}]),
        ]
        .map(|messages| Document::Chat(crate::text::Conversation::new(messages).unwrap()));
        assert_eq!(read(&path, None).unwrap(), expected);
    }

    #[test]
    fn bytes_are_texts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write_as(
            &path,
            "text",
            &[Some("a é"), None, Some("12")],
            Compression::UNCOMPRESSED,
        );
        assert_eq!(read(&path, None).unwrap(), ["a é", "12"]);
    }

    /// Files as the hub makes them: texts, numbers, lists, and lists in a group.
    #[test]
    fn all_columns() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval/tasks");
        for (name, file) in [
            ("hellaswag", "Rowan/hellaswag/default/validation"),
            ("arc_easy", "allenai/ai2_arc/ARC-Easy/test"),
            ("boolq", "aps/super_glue/boolq/validation"),
        ] {
            let path = fixtures.join("parquet").join(file).join("0000.parquet");
            let mut rows = Vec::new();
            read_objects(&path, File::open(&path).unwrap(), &mut |number, columns| {
                rows.push((number, serde_json::Value::Object(columns)));
            })
            .unwrap();
            let lines = std::fs::read_to_string(fixtures.join(format!("{name}.jsonl"))).unwrap();
            let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
            assert_eq!(rows, (1..).zip(lines).collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let text = "Once upon a time ".repeat(20);
        write(&path, "text", &[Some(&text), Some("b")], Compression::SNAPPY);
        let good = std::fs::read(&path).unwrap();
        for length in [0, 4, good.len() / 2, good.len() - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(
                read(&path, None),
                Err(Error::Data(DataError::Parquet { .. }))
            ));
        }
        // Any byte may be wrong: an error or other rows, never the end of the program.
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0xff;
            std::fs::write(&path, &bad).unwrap();
            let _ = read(&path, None);
            let _ = read_objects(&path, File::open(&path).unwrap(), &mut |_, _| {});
        }
    }
}
