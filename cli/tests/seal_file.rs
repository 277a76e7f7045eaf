//! `cohort seal` and `cohort inspect` without a chain: what is recognised, written, printed and refused.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
    sync::Arc,
};

use alloy::primitives::{Address, B256};
use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray},
    datatypes::{DataType, Field, Int32Type, Schema, TimeUnit},
    ipc::writer::{FileWriter, StreamWriter},
};
use cohort_cli::{
    failure::Failure,
    inspect::inspect_file,
    seal::{Interrupt, Place, SealFileError, SealInput, SealReport, seal_file, seal_path, seal_stream},
};
use cohort_protocol::{
    hpke::{KeyPair, SecretBytes},
    ids::ComposeHash,
    sealed::{self, Column, ContentKind, wrap_key_from_root},
};
use cohort_recognise::{RecogniseError, Recognised, recognise_stream};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

fn recognise_bytes(bytes: &[u8]) -> Result<Recognised, RecogniseError> {
    recognise_stream(&mut Cursor::new(bytes), &|| false)
}

fn root() -> KeyPair {
    KeyPair::derive(&SecretBytes::new([7; 32]))
}

fn input(path: &Path, output: &Path) -> SealInput {
    SealInput {
        owner: "hospital-A".parse().unwrap(),
        input: path.to_owned(),
        output: Some(output.to_owned()),
        chain_id: 31337,
        app: Address::repeat_byte(0x4f),
        compose_hash: ComposeHash(B256::repeat_byte(0xa4)),
        root_epoch: 0,
        root_key: root().public_key().clone(),
        no_metadata: false,
        recovery: None,
        reads: vec![],
    }
}

struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn seal(&self, name: &str, bytes: &[u8]) -> Result<SealReport, SealFileError> {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        seal_file(&input(&path, &self.output()))
    }

    fn output(&self) -> std::path::PathBuf {
        self.0.path().join("sealed").join("out.tar")
    }

    /// What stands in the output folder.
    fn left(&self) -> usize {
        fs::read_dir(self.0.path().join("sealed")).map_or(0, Iterator::count)
    }

    fn opened(&self) -> Vec<u8> {
        let file = fs::read(self.output()).unwrap();
        let envelope = sealed::read_header(&mut &file[..]).unwrap();
        let key = wrap_key_from_root(&root(), &envelope.context(), envelope.enc()).unwrap();
        sealed::open(&mut &file[..], &key, 1 << 30).unwrap().0.to_vec()
    }
}

fn batch() -> RecordBatch {
    RecordBatch::try_from_iter([
        ("age", Arc::new(Int64Array::from(vec![63, 41, 57])) as ArrayRef),
        ("sex", Arc::new(StringArray::from(vec!["m", "f", "f"]))),
        ("bp", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(2.0)]))),
    ])
    .unwrap()
}

fn parquet_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch().schema(), None).unwrap();
    writer.write(&batch()).unwrap();
    writer.close().unwrap();
    bytes
}

fn schema(columns: &[(&str, &str)]) -> Vec<Column> {
    columns.iter().map(|(name, kind)| Column { name: (*name).into(), type_name: (*kind).into() }).collect()
}

const COLUMNS: [(&str, &str); 3] = [("age", "int64"), ("sex", "utf8"), ("bp", "float64")];

#[test]
fn nested_parquet_is_told_by_its_top_columns() {
    let tags =
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let site = StructArray::from(vec![(
        Arc::new(Field::new("ward", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("b")])) as ArrayRef,
    )]);
    let batch = RecordBatch::try_from_iter([("tags", Arc::new(tags) as ArrayRef), ("site", Arc::new(site))]);
    let (batch, mut bytes) = (batch.unwrap(), Vec::new());
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let site = Site::new();
    let report = site.seal("nested.parquet", &bytes).unwrap();
    assert_eq!((report.kind, report.rows), (ContentKind::Parquet, Some(3)));
    let columns = inspect_file(&site.output()).unwrap().schema.unwrap();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["tags", "site"]);
    assert!(columns[0].type_name.starts_with("list(") && columns[1].type_name.starts_with("struct("));
    assert_eq!(site.opened(), bytes);
}

#[test]
fn csv_of_every_line_end_is_counted() {
    for text in ["a,b\r\n1,2\r\n3,4\r\n", "a,b\n1,2\n3,4", "a,b\r\n\r\n1,2\r\n3,4", "a,b\r1,2\r3,4\r"] {
        let report = Site::new().seal("a.csv", text.as_bytes()).unwrap();
        assert_eq!((report.kind, report.rows), (ContentKind::Csv, Some(2)), "{text:?}");
    }
    assert_eq!(Site::new().seal("a.csv", b"a,b\n").unwrap().rows, Some(0), "a header alone");
}

#[test]
fn parquet_is_recognised_by_its_footer() {
    let site = Site::new();
    let bytes = parquet_bytes();
    let report = site.seal("cohort-A.parquet", &bytes).unwrap();
    assert_eq!((report.kind, report.rows), (ContentKind::Parquet, Some(3)));
    assert_eq!(inspect_file(&site.output()).unwrap().schema.unwrap(), schema(&COLUMNS));
    assert_eq!(site.opened(), bytes);
}

#[test]
fn arrow_is_recognised_whatever_its_name() {
    let site = Site::new();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &batch().schema()).unwrap();
    writer.write(&batch()).unwrap();
    writer.write(&batch()).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let report = site.seal("table", &bytes).unwrap();
    assert_eq!((report.kind, report.rows), (ContentKind::Arrow, Some(6)));
    assert_eq!(inspect_file(&site.output()).unwrap().schema.unwrap(), schema(&COLUMNS));
    assert_eq!(site.opened(), bytes);
}

#[test]
fn types_of_any_table_fit_the_envelope() {
    let site = Site::new();
    let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let parts: Vec<_> = (0..40).map(|i| Field::new(format!("é{i}"), DataType::Int64, true)).collect();
    let fields = vec![
        Field::new("seen", time(None), true),
        Field::new("left", time(Some("Europe/Istanbul")), true),
        Field::new("born", DataType::Date32, true),
        Field::new("parts", DataType::Struct(parts.into()), true),
    ];
    let table = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();
    site.seal("table.parquet", &bytes).unwrap();
    let told = inspect_file(&site.output()).unwrap().schema.unwrap();
    let types: Vec<_> = told.iter().map(|column| column.type_name.as_str()).collect();
    assert_eq!(types[..3], ["timestamp(us)", "timestamp(us, \"europe/istanbul\")", "date32"]);
    assert!(types[3].starts_with("struct(\"?0\": int64, \"?1\"") && types[3].len() == 256, "{}", types[3]);
}

#[test]
fn csv_is_counted_and_typed() {
    let site = Site::new();
    let text =
        "\u{feff}id,bp,name,smoker,empty\n1,1.5,\"A, B\",true,\n-2,,\"two\nlines\",false,\n3,2,x,true,\n";
    let report = site.seal("cohort-A.CSV", text.as_bytes()).unwrap();
    assert_eq!((report.kind, report.rows), (ContentKind::Csv, Some(3)));
    let columns =
        [("id", "int64"), ("bp", "float64"), ("name", "utf8"), ("smoker", "bool"), ("empty", "utf8")];
    assert_eq!(inspect_file(&site.output()).unwrap().schema.unwrap(), schema(&columns));
    assert_eq!(site.opened(), text.as_bytes(), "the bytes are sealed as they are");
}

#[test]
fn other_files_and_empty_ones_are_bytes() {
    for content in [&b"\x89PNG not a table"[..], b""] {
        let site = Site::new();
        let report = site.seal("scan.png", content).unwrap();
        assert_eq!((report.kind, report.rows), (ContentKind::Bytes, None));
        assert_eq!(site.opened(), content);
    }
}

#[test]
fn the_report_and_the_card_read_as_on_the_page() {
    let site = Site::new();
    let report = site.seal("cohort-A.parquet", &parquet_bytes()).unwrap();
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "-> wrap-key = HKDF(kms, app, compose, owner) derived (X-Wing, epoch 0)");
    assert_eq!(lines[1], format!("-> {}", site.output().display()));
    assert!(lines[2].starts_with("3 rows · ") && lines[2].ends_with(" KB"), "{text}");
    assert_eq!(lines[3], format!("dataset id {}", report.dataset_id));

    let card = inspect_file(&site.output()).unwrap();
    assert_eq!(card.dataset_id, report.dataset_id);
    assert_eq!(card.sealed_bytes, fs::metadata(site.output()).unwrap().len());
    let text = card.to_string();
    for part in [
        "sealed dataset · out.tar",
        "hospital-A",
        "analysis-compose-hash  0xa4a4",
        "AES-256-GCM",
        "recipe-bound",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let json = serde_json::to_value(&card).unwrap();
    assert_eq!(json["analysis_app_id"], "0x4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f");
    assert_eq!((&json["rows"], &json["kind"]), (&3.into(), &"parquet".into()));
}

#[test]
fn metadata_can_be_withheld() {
    let site = Site::new();
    let path = site.0.path().join("cohort-A.parquet");
    fs::write(&path, parquet_bytes()).unwrap();
    let report = seal_file(&SealInput { no_metadata: true, ..input(&path, &site.output()) }).unwrap();
    assert_eq!(report.rows, None);
    let card = inspect_file(&site.output()).unwrap();
    assert_eq!((card.rows, &card.schema), (None, &None));
    assert!(card.to_string().contains("not told"));
    let file = fs::read(site.output()).unwrap();
    let envelope = sealed::read_header(&mut &file[..]).unwrap();
    let text = String::from_utf8(envelope.bytes().to_vec()).unwrap();
    for told in ["rows", "schema\"", "trestbps", "cohort-A", "\"age\""] {
        assert!(!text.contains(told), "{told} in {text}");
    }
}

/// A mistake: its words, a hint, and nothing left in the output folder.
fn refused(site: &Site, error: SealFileError, words: &str, hint: &str) {
    let failure = Failure::from(error);
    assert!(failure.message.contains(words), "{}", failure.message);
    assert!(failure.hint.as_ref().unwrap().contains(hint), "{:?}", failure.hint);
    assert_eq!(site.left(), 0);
}

#[test]
fn unreadable_tables_are_refused_by_name_and_line() {
    let mut cut = parquet_bytes();
    cut.truncate(cut.len() - 5);
    let cases: [(&str, &[u8], &str, &str); 12] = [
        ("a.parquet", &cut, "a.parquet is not readable as Parquet", "export the file again"),
        ("a.arrow", b"ARROW1\0\0nonsense", "not readable as Arrow", "export the file again"),
        ("a.csv", b"name\nJos\xe9\n", "line 2 is not UTF-8", "export the file again"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, the header has 2", "export"),
        ("a.csv", b"", "must name every column", "export"),
        ("a.csv", b"a,\n1,2\n", "must name every column", "export"),
        ("a.csv", b"\xff\xfea\0,\0b\0", "line 1 is not UTF-8", "export"),
        ("a.csv", b"age;sex\n63;m\n", "separated by ';', not by commas", "export"),
        ("a.csv", b"age\tsex\n63\tm\n", "separated by '\\t', not by commas", "export"),
        ("a.Parquet", b"", "does not begin as Parquet does", "export the file again"),
        ("a.parquet", b"<html>404</html>", "does not begin as Parquet does", "export the file again"),
        ("a.feather", b"FEA1", "does not begin as Arrow does", "export the file again"),
    ];
    for (name, bytes, words, hint) in cases {
        let site = Site::new();
        let error = site.seal(name, bytes).unwrap_err();
        refused(&site, error, words, hint);
    }
}

#[test]
fn cells_are_not_quoted_in_errors() {
    let site = Site::new();
    let error = site.seal("a.csv", b"name,age\nMustermann,1\nMustermann,2,3\n").unwrap_err();
    assert!(!Failure::from(error).message.contains("Mustermann"));
}

#[test]
fn missing_inputs_folders_and_names_that_do_not_fit_are_refused() {
    let site = Site::new();
    let path = site.0.path().join("absent.csv");
    let error = seal_file(&input(&path, &site.output())).unwrap_err();
    refused(&site, error, "cannot read", "--in");
    let error = seal_file(&input(site.0.path(), &site.output())).unwrap_err();
    refused(&site, error, "is not a regular file", "one file");
    let error = site.seal("a.csv", format!("{},b\n1,2\n", "x".repeat(200)).as_bytes()).unwrap_err();
    refused(&site, error, "do not fit the envelope", "--no-metadata");
}

#[test]
fn nothing_is_overwritten() {
    let site = Site::new();
    site.seal("a.csv", b"a,b\n1,2\n").unwrap();
    let before = fs::read(site.output()).unwrap();
    let error = site.seal("a.csv", b"a,b\n3,4\n").unwrap_err();
    assert!(matches!(error, SealFileError::Exists { .. }));
    assert!(error.hint().contains("--out"));
    assert_eq!(fs::read(site.output()).unwrap(), before);
    assert_eq!(site.left(), 1);
}

/// The input grows, shrinks, or is written to in place, at the moment at which sealing has looked at it.
#[test]
fn an_input_that_somebody_writes_to_is_refused() {
    let changes: [fn(&fs::File); 3] = [
        |file| file.set_len(4 << 20).unwrap(),
        |file| file.set_len(1 << 20).unwrap(),
        |file| file.set_modified(std::time::UNIX_EPOCH).unwrap(),
    ];
    for change in changes {
        let site = Site::new();
        let path = site.0.path().join("scan.bin");
        fs::write(&path, vec![0; 3 << 20]).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        // The reader of a pipe takes its first bytes when the work has begun.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut place = Place::Stream(fs::File::from(std::os::fd::OwnedFd::from(writer)));
        let sealing = std::thread::spawn({
            let input = input(&path, Path::new("-"));
            move || seal_path(&input, &mut place, &Interrupt::default())
        });
        std::io::Read::read_exact(&mut reader, &mut [0; 512]).unwrap();
        change(&file);
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        let error = sealing.join().unwrap().unwrap_err();
        assert!(matches!(error, SealFileError::Changed { .. }), "{error}");
        assert!(error.hint().contains("a copy that nobody writes to"));
    }
}

#[test]
fn an_interruption_leaves_nothing() {
    let site = Site::new();
    let path = site.0.path().join("scan.bin");
    fs::write(&path, vec![0; 3 << 20]).unwrap();
    let interrupt = Interrupt::default();
    interrupt.set();
    let mut place = Place::File(site.output());
    let error = seal_path(&input(&path, &site.output()), &mut place, &interrupt).unwrap_err();
    assert!(matches!(error, SealFileError::Interrupted));
    assert_eq!(site.left(), 0);
}

#[test]
fn a_full_disk_is_named() {
    let site = Site::new();
    let path = site.0.path().join("scan.bin");
    fs::write(&path, vec![0; 3 << 20]).unwrap();
    let input = SealInput { recovery: Some(site.0.path().join("kept")), ..input(&path, Path::new("-")) };
    let full = || Place::Stream(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let errors = [
        seal_path(&input, &mut full(), &Interrupt::default()).unwrap_err(),
        seal_stream(&input, &mut &b"a,b\n1,2\n"[..], &mut full()).unwrap_err(),
    ];
    for error in errors {
        let failure = Failure::from(error);
        assert!(failure.message.starts_with("cannot write -: No space left"), "{}", failure.message);
        assert!(failure.hint.unwrap().starts_with("free space there"));
    }
    assert!(!site.0.path().join("kept").exists(), "no recovery file of a file that does not exist");
}

#[test]
fn streams_of_any_kind_are_sealed_without_their_plaintext_on_a_disk() {
    let kinds = [
        (parquet_bytes(), ContentKind::Parquet, Some(3)),
        (b"a,b\n1,2\n".to_vec(), ContentKind::Csv, Some(1)),
        (vec![0; (5 << 20) + 3], ContentKind::Bytes, None),
        (vec![], ContentKind::Bytes, None),
    ];
    for (bytes, kind, rows) in kinds {
        let site = Site::new();
        let input = input(Path::new("-"), &site.output());
        let report = seal_stream(&input, &mut &bytes[..], &mut Place::File(site.output())).unwrap();
        assert_eq!((report.kind, report.rows, report.plain_bytes), (kind, rows, bytes.len() as u64));
        assert!(site.opened() == bytes);
        assert_eq!(site.left(), 1);
    }
}

#[test]
fn a_stream_that_breaks_or_is_not_what_it_begins_as_leaves_nothing() {
    struct Breaks(u64);
    impl std::io::Read for Breaks {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(std::io::ErrorKind::ConnectionReset)?;
            Ok(buf.len())
        }
    }
    let site = Site::new();
    let input = input(Path::new("-"), &site.output());
    let error = seal_stream(&input, &mut Breaks(5), &mut Place::File(site.output())).unwrap_err();
    refused(&site, error, "cannot read -", "--in");
    let mut cut = parquet_bytes();
    cut.truncate(cut.len() - 5);
    let error = seal_stream(&input, &mut &cut[..], &mut Place::File(site.output())).unwrap_err();
    refused(&site, error, "- is not readable as Parquet", "export the file again");
}

#[test]
fn a_pipe_gets_the_same_file_as_a_name() {
    let site = Site::new();
    let path = site.0.path().join("a.csv");
    fs::write(&path, "a,b\n1,2\n").unwrap();
    fs::create_dir(site.0.path().join("sealed")).unwrap();
    let pipe = fs::File::create(site.output()).unwrap();
    let input = input(&path, Path::new("-"));
    let report = seal_path(&input, &mut Place::Stream(pipe), &Interrupt::default()).unwrap();
    assert_eq!(report.file, Path::new("-"));
    assert_eq!(inspect_file(&site.output()).unwrap().dataset_id, report.dataset_id);
    assert_eq!(site.opened(), b"a,b\n1,2\n");
}

#[test]
fn arrow_streams_are_recognised_and_damaged_ones_refused() {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch().schema()).unwrap();
    writer.write(&batch()).unwrap();
    writer.write(&batch()).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let site = Site::new();
    let report = site.seal("table.arrows", &bytes).unwrap();
    assert_eq!((report.kind, report.rows), (ContentKind::Arrow, Some(6)));
    assert_eq!(inspect_file(&site.output()).unwrap().schema.unwrap(), schema(&COLUMNS));
    for length in (8..bytes.len() - 8).step_by(5) {
        let site = Site::new();
        match site.seal("table", &bytes[..length]) {
            Err(error) => refused(&site, error, "not readable as Arrow", "export the file again"),
            // A cut between two messages is a stream without its end mark, which Arrow allows.
            Ok(report) => assert!(report.rows < Some(6) || length == bytes.len() - 8),
        }
    }
}

#[test]
fn a_csv_line_without_end_is_not_held_in_memory() {
    let long = vec![b'x'; 17 << 20];
    let site = Site::new();
    let error = site.seal("a.csv", &long).unwrap_err();
    refused(&site, error, "a line is longer than 16 MiB", "export");
    assert_eq!(recognise_bytes(&long).unwrap().kind, ContentKind::Bytes);
}

#[test]
fn what_has_no_name_is_recognised_by_content() {
    let recognised = |bytes: &[u8]| recognise_bytes(bytes).map(|found| (found.kind, found.rows));
    assert_eq!(recognised(&parquet_bytes()).unwrap(), (ContentKind::Parquet, Some(3)));
    assert_eq!(recognised(b"a,b\n1,2\n").unwrap(), (ContentKind::Csv, Some(1)));
    for other in [&b"one word\n"[..], b"a,b\n1,2,3\n", b"\xff\xfe,\n", b""] {
        assert_eq!(recognised(other).unwrap(), (ContentKind::Bytes, None));
    }
    assert!(recognised(b"PAR1 and no footer").is_err());
}

#[test]
fn inspect_refuses_what_is_not_intact() {
    let site = Site::new();
    site.seal("a.csv", b"a,b\n1,2\n").unwrap();
    let mut bytes = fs::read(site.output()).unwrap();
    bytes.truncate(bytes.len() - 1);
    let path = site.0.path().join("cut.tar");
    fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    let failure = Failure::from(inspect_file(&path).unwrap_err());
    assert!(failure.message.contains("cut.tar is not an intact sealed dataset (tar)"), "{}", failure.message);
    assert!(failure.hint.unwrap().contains("cohort seal"));
    assert!(inspect_file(&site.0.path().join("absent.tar")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_asks_to_stop_instead_of_ending_the_process() {
    let interrupt = Interrupt::listen();
    let me = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &me]).status().unwrap().success());
    for _ in 0..500 {
        if interrupt.is_set() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the signal was not heard");
}
