//! `[[sink]]`: what is read, and what is said of wrong keys.

use trunkline_config::{Config, Confirm, FileFormat, PcmChannel, PcmTarget, Secret, SinkKind};

fn read(text: &str) -> Vec<trunkline_config::Sink> {
    Config::parse(text, "test.toml")
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
        .sinks
}

fn refused(lines: &str, key: &str, words: &str) {
    let text = format!("[[sink]]\n{lines}\n");
    let errors = Config::parse(&text, "test.toml").err();
    let errors = errors.unwrap_or_else(|| panic!("accepted:\n{text}")).0;
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    assert_eq!(errors[0].key, key, "{text}\n{errors:#?}");
    assert!(errors[0].message.contains(words), "{text}\n{errors:#?}");
}

#[test]
fn each_kind_has_its_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "  s3cret\n").unwrap();
    let text = format!(
        "[[sink]]\nkind = \"directory\"\npath = \"/srv/recordings\"\n\
         [[sink]]\nname = \"cloud\"\nkind = \"object_store\"\nbucket = \"calls\"\naccess_key = \"me\"\n\
         secret_key_file = \"{0}\"\ntemplate = \"{{tenant}}/{{recording}}\"\n\
         formats = [\"json\", \"evidence\"]\n\
         [[sink]]\nkind = \"webhook\"\nurl = \"https://crm.example/hook\"\nsecret_file = \"{0}\"\n\
         tenant = \"acme\"\n\
         [[sink]]\nkind = \"pcm\"\nurl = \"ws://127.0.0.1:9000/asr\"\n\
         [[sink]]\nname = \"asr\"\nkind = \"pcm\"\nsocket = \"/run/asr.sock\"\nchannels = [\"callee\"]\n",
        secret.display()
    );
    let sinks = read(&text);
    let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["directory", "cloud", "webhook", "pcm", "asr"]);
    assert_eq!(sinks[2].tenant.as_deref(), Some("acme"));
    let SinkKind::Directory(directory) = &sinks[0].kind else {
        panic!("{sinks:?}")
    };
    assert_eq!(directory.files.template.to_string(), "{date}/{recording}");
    let default = [FileFormat::Sn3, FileFormat::Wav, FileFormat::Json];
    assert_eq!(directory.files.formats, default);
    assert!(directory.delete);
    let SinkKind::ObjectStore(store) = &sinks[1].kind else {
        panic!("{sinks:?}")
    };
    let sealed = [FileFormat::Evidence, FileFormat::Json];
    assert_eq!(store.files.formats, sealed, "in the order of their making");
    assert_eq!((store.part_bytes, store.delivery.timeout_s), (8 << 20, 60));
    assert_eq!(store.confirm, Confirm::Content);
    assert_eq!(store.secret_key, Some(Secret("s3cret".to_owned())));
    assert!(!format!("{store:?}").contains("s3cret"), "not for a log");
    let SinkKind::Webhook(webhook) = &sinks[2].kind else {
        panic!("{sinks:?}")
    };
    assert_eq!(
        (webhook.delivery.timeout_s, webhook.delivery.parallel),
        (10, 4)
    );
    let targets = sinks[3..].iter().map(|sink| match &sink.kind {
        SinkKind::Pcm(pcm) => (pcm.target.clone(), pcm.channels.len()),
        other => panic!("{other:?}"),
    });
    let expected = [
        (
            PcmTarget::WebSocket(Secret("ws://127.0.0.1:9000/asr".into())),
            2,
        ),
        (PcmTarget::Unix("/run/asr.sock".into()), 1),
    ];
    assert_eq!(targets.collect::<Vec<_>>(), expected);
    assert_eq!(PcmChannel::Callee, PcmChannel::Callee);
}

#[test]
fn wrong_keys_are_named() {
    for (lines, key, words) in [
        ("path = \"x\"", "sink.kind", "must be one of"),
        ("kind = \"ftp\"", "sink.kind", "is not one of"),
        ("kind = \"directory\"", "sink.path", "is missing"),
        (
            "kind = \"directory\"\npath = \"\"",
            "sink.path",
            "must not be empty",
        ),
        (
            "kind = \"directory\"\npath = \"x\"\nurl = \"http://x\"",
            "sink.url",
            "unknown key",
        ),
        (
            "kind = \"directory\"\npath = \"x\"\ntemplate = \"{date}\"",
            "sink.template",
            "{recording}",
        ),
        (
            "kind = \"directory\"\npath = \"x\"\nformats = [\"mp3\"]",
            "sink.formats",
            "\"mp3\" is not one of",
        ),
        ("kind = \"object_store\"", "sink.bucket", "is missing"),
        (
            "kind = \"object_store\"\nbucket = \"b\"\naccess_key = \"a\"",
            "sink.access_key",
            "belong together",
        ),
        (
            "kind = \"object_store\"\nbucket = \"b\"\npart_bytes = 1000",
            "sink.part_bytes",
            "must be between",
        ),
        ("kind = \"webhook\"", "sink.url", "is missing"),
        (
            "kind = \"webhook\"\nurl = \"crm.example\"",
            "sink.url",
            "is no http",
        ),
        (
            "kind = \"webhook\"\nurl = \"http://h/\"\nsecret_file = \"/nowhere/s\"",
            "sink.secret_file",
            "/nowhere/s",
        ),
        ("kind = \"pcm\"", "sink.url", "either url"),
        (
            "kind = \"pcm\"\nurl = \"http://h/\"",
            "sink.url",
            "is no ws://",
        ),
        (
            "kind = \"pcm\"\nurl = \"ws://h/\"\nsocket = \"s\"",
            "sink.url",
            "either url",
        ),
    ] {
        refused(lines, key, words);
    }
    let twice = "kind = \"directory\"\npath = \"x\"\n[[sink]]\nkind = \"directory\"\npath = \"y\"";
    refused(twice, "sink.name", "is there already");
}

#[test]
fn authorities_are_read_where_there_is_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("ca.pem"), folder.path().join("bad.pem"));
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    std::fs::write(&good, pem).unwrap();
    std::fs::write(&bad, "a key").unwrap();
    let sinks = read(&format!(
        "[[sink]]\nkind = \"webhook\"\nurl = \"https://a.example/t0ken\"\nca_file = \"{0}\"\n\
         [[sink]]\nkind = \"object_store\"\nbucket = \"b\"\nca_file = \"{0}\"\n\
         [[sink]]\nkind = \"pcm\"\nurl = \"wss://a.example/t0ken\"\nca_file = \"{0}\"\n",
        good.display()
    ));
    for sink in &sinks {
        let given = match &sink.kind {
            SinkKind::Webhook(one) => &one.authorities,
            SinkKind::ObjectStore(one) => &one.authorities,
            SinkKind::Pcm(one) => &one.authorities,
            SinkKind::Directory(_) => panic!("{sink:?}"),
        };
        assert_eq!(given.as_deref(), Some(pem));
        assert!(!format!("{sink:?}").contains("t0ken"), "not for a log");
    }
    for (kind, file, words) in [
        (
            "webhook\"\nurl = \"https://a.example/",
            &bad,
            "no certificate",
        ),
        (
            "webhook\"\nurl = \"http://a.example/",
            &good,
            "is of no use",
        ),
        ("pcm\"\nurl = \"ws://a.example/", &good, "is of no use"),
        ("pcm\"\nsocket = \"/run/asr", &good, "is of no use"),
    ] {
        let lines = format!("kind = \"{kind}\"\nca_file = \"{}\"", file.display());
        refused(&lines, "sink.ca_file", words);
    }
}
