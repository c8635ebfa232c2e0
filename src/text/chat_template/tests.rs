use super::*;
use serde_json::json;

fn fixtures() -> Vec<serde_json::Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/cases.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn folder(template: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": "</s>"});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

fn render(template: &str, messages: serde_json::Value) -> Result<String> {
    ChatTemplate::open(folder(template).path())?.render(&Conversation::new(messages).unwrap())
}

/// A parsed value keeps the order of a file's keys, which `json!` and `serde_json::Value` do not.
fn parsed(text: &str) -> Conversation {
    Conversation::from_value(serde_json::from_str::<Value>(text).unwrap()).unwrap()
}

/// What jinja2 makes of the same templates and conversations, set up as transformers does.
#[test]
fn renders_as_python_does() {
    // Read as text, for the order of keys.
    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        template: String,
        messages: Value,
        text: Option<String>,
        error: Option<String>,
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/cases.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(cases.len(), 16);
    let mut rendered = 0;
    for case in &cases {
        let template = ChatTemplate::open(folder(&case.template).path()).unwrap();
        let found = template.render(&Conversation::from_value(case.messages.clone()).unwrap());
        match (&case.text, found) {
            (Some(expected), Ok(found)) => {
                assert_eq!(&found, expected, "{} of {}", case.name, case.messages);
                rendered += 1;
            }
            (None, Err(error)) => {
                let reason = case.error.as_deref().unwrap();
                // The words of Jinja's own errors are its own; those of a template are not.
                if reason.starts_with("Roles") {
                    assert!(error.to_string().contains(reason), "{error}");
                }
            }
            (expected, found) => panic!("{} of {}: {expected:?} {found:?}", case.name, case.messages),
        }
    }
    assert!(rendered >= 9, "{rendered}");
}

#[test]
fn where_templates_are() {
    let messages = json!([{"role": "user", "content": "x"}]);
    let several =
        json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d{{ bos_token }}"}]);
    let dir = folder("");
    let open = || {
        ChatTemplate::open(dir.path())
            .unwrap()
            .render(&Conversation::new(&messages).unwrap())
            .unwrap()
    };
    let config = json!({"chat_template": several});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(
        dir.path().join("special_tokens_map.json"),
        json!({"bos_token": {"content": "<b>"}}).to_string(),
    )
    .unwrap();
    assert_eq!(open(), "d<b>");
    std::fs::write(
        dir.path().join("chat_template.json"),
        json!({"chat_template": "j"}).to_string(),
    )
    .unwrap();
    assert_eq!(open(), "j");
    std::fs::write(
        dir.path().join("chat_template.jinja"),
        "f{{ messages[0].content }}",
    )
    .unwrap();
    assert_eq!(open(), "fx");
}

#[test]
fn the_same_date_every_day() {
    let one = json!([{"role": "user", "content": "x"}]);
    let date = "{{ strftime_now('%d %B %Y, %Y-%m-%d %H:%M %a') }}";
    assert_eq!(
        render(date, one.clone()).unwrap(),
        "26 July 2024, 2024-07-26 00:00 Fri"
    );
    assert!(
        render("{{ strftime_now('%Q') }}", one)
            .unwrap_err()
            .to_string()
            .contains("%Q")
    );
}

#[test]
fn marks_of_what_was_generated() {
    let one = json!([{"role": "user", "content": "x"}]);
    let marked = "a {%- generation -%} {{ messages[0].content }} {%- endgeneration %} b{% generation %}c{% endgeneration %}";
    assert_eq!(render(marked, one).unwrap(), "ax bc");
}

#[test]
fn keys_keep_their_order() {
    let template = ChatTemplate::open(folder("{{ messages[0] | tojson }}").path()).unwrap();
    let text = r#"[{"role": "user", "z": 1, "content": "x", "a": {"k": 2, "b": 3}}]"#;
    let expected = r#"{"role": "user", "z": 1, "content": "x", "a": {"k": 2, "b": 3}}"#;
    assert_eq!(template.render(&parsed(text)).unwrap(), expected);
}

#[test]
fn what_is_no_conversation_or_no_template() {
    for wrong in [
        json!("x"),
        json!([]),
        json!(["x"]),
        json!([{"content": "x"}]),
        json!([{"role": 1}]),
        json!({"role": "user"}),
    ] {
        assert!(Conversation::new(&wrong).is_err(), "{wrong}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        ChatTemplate::open(dir.path()),
        Err(Error::Tokenizer(TokenizerError::NoChatTemplate { .. }))
    ));
    for broken in ["{% for %}", "{{ messages[0].nothing.at.all }}", "{{ x( }}"] {
        let error = render(broken, fixtures()[0]["messages"].clone()).unwrap_err();
        assert!(
            matches!(&error, Error::Tokenizer(TokenizerError::ChatTemplate { file, .. }) if file.ends_with("tokenizer_config.json")),
            "{error}"
        );
    }
}
