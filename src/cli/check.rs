//! `gatepost check`: every fault of the configuration and the rules at once, or the table of what would run.
//!
//! Looks at the files, the certificates and the ports, and changes nothing. Exit status 0: sound, 1: the answer
//! could not be written, 2: faults.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};

use crate::{
    config::{Config, Listener, Reading, Rules, Upstream},
    fault::Fault,
};

/// The arguments of `gatepost check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration; without it ./gatepost.yaml, then /etc/gatepost/gatepost.yaml.
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Checks, prints, and says how the process ends. `load_rules` loads what the configuration names and tells how
/// many rules that is.
pub fn run(args: &Args, load_rules: impl FnOnce(&Rules) -> Result<usize, Vec<Fault>>) -> ExitCode {
    let outcome = examine(args.config.as_deref(), load_rules);
    let mut out = anstream::stdout().lock();
    let written = if args.json { write_json(&mut out, &outcome) } else { write_text(&mut out, &outcome) };
    match written.and_then(|()| out.flush()) {
        Err(_) => ExitCode::from(1),
        Ok(()) if outcome.faults.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(2),
    }
}

/// What the check found. `config` is there as soon as there is a file.
struct Outcome {
    file: String,
    config: Option<Config>,
    rules: usize,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

fn examine(named: Option<&Path>, load_rules: impl FnOnce(&Rules) -> Result<usize, Vec<Fault>>) -> Outcome {
    let reading = Config::find(named).and_then(|path| Config::load(&path));
    let mut reading = match reading {
        Ok(reading) => reading,
        Err(fault) => {
            let file = fault.file.to_string();
            return Outcome { file, config: None, rules: 0, faults: vec![fault], warnings: Vec::new() };
        }
    };
    reading.check_ports();
    reading.check_open_files();
    let Reading { config, mut faults, warnings, .. } = reading;
    let rules = load_rules(&config.rules).unwrap_or_else(|found| {
        faults.extend(found);
        0
    });
    Outcome { file: config.file.to_string(), config: Some(config), rules, faults, warnings }
}

fn write_json(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let list = |faults: &[Fault]| -> Vec<_> {
        let object = |fault: &Fault| {
            serde_json::json!({
                "file": &*fault.file, "line": fault.line, "column": fault.column,
                "problem": fault.problem, "remedy": fault.remedy,
            })
        };
        faults.iter().map(object).collect()
    };
    let report = serde_json::json!({
        "file": outcome.file,
        "rules": outcome.rules,
        "faults": list(&outcome.faults),
        "warnings": list(&outcome.warnings),
    });
    writeln!(out, "{report}")
}

fn write_text(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let (red, yellow) = (AnsiColor::Red.on_default().bold(), AnsiColor::Yellow.on_default().bold());
    for fault in &outcome.faults {
        write_fault(out, fault, "", red)?;
    }
    for warning in &outcome.warnings {
        write_fault(out, warning, "warning: ", yellow)?;
    }
    match (&outcome.config, outcome.faults.len()) {
        (Some(config), 0) => write_summary(out, config, outcome),
        (_, faults) => writeln!(out, "\n{}: {}", outcome.file, counted(faults, outcome.warnings.len())),
    }
}

fn write_fault(out: &mut impl Write, fault: &Fault, kind: &str, style: Style) -> io::Result<()> {
    let bold = Style::new().bold();
    let place = match fault.line {
        0 => fault.file.to_string(),
        line => format!("{}:{line}:{}", fault.file, fault.column),
    };
    writeln!(out, "{bold}{place}:{bold:#} {style}{kind}{}{style:#}", fault.problem)?;
    if fault.remedy.is_empty() { Ok(()) } else { writeln!(out, "  fix: {}", fault.remedy) }
}

fn counted(faults: usize, warnings: usize) -> String {
    let some = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    match warnings {
        0 => some(faults, "fault"),
        _ => format!("{}, {}", some(faults, "fault"), some(warnings, "warning")),
    }
}

fn write_summary(out: &mut impl Write, config: &Config, outcome: &Outcome) -> io::Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["listener", "protocol", "bound to", "tls", "upstream", "servers", "tls", "policy"]);
    for listener in &config.listeners {
        let upstream = config.upstreams.iter().find(|upstream| upstream.name == listener.upstream);
        table.add_row(row(listener, upstream));
    }
    writeln!(out, "{table}\n")?;
    let source = match (&config.rules.paths[..], &config.rules.spamassassin[..]) {
        ([], []) => "built in",
        _ => "loaded",
    };
    let rules = outcome.rules;
    writeln!(out, "{}: sound; {rules} rules {source}; {}", outcome.file, counted(0, outcome.warnings.len()))
}

fn row(listener: &Listener, upstream: Option<&Upstream>) -> [String; 8] {
    let joined = |items: Vec<String>| items.join("\n");
    [
        listener.name.clone(),
        listener.protocol.as_str().into(),
        joined(listener.bind.iter().map(ToString::to_string).collect()),
        listener.tls.mode.as_str().into(),
        listener.upstream.clone(),
        joined(upstream.map(|u| u.servers.iter().map(ToString::to_string).collect()).unwrap_or_default()),
        upstream.map_or("", |u| u.tls.mode.as_str()).into(),
        listener.policy.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str, json: bool) -> (String, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gatepost.yaml");
        std::fs::write(&path, text.replace("STORE", &folder.path().display().to_string())).unwrap();
        let outcome = examine(Some(&path), |_| Ok(7));
        let mut out = Vec::new();
        if json {
            write_json(&mut out, &outcome)
        } else {
            write_text(&mut anstream::StripStream::new(&mut out), &outcome)
        }
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        (text.replace(&format!("{}/", folder.path().display()), ""), outcome.faults.len())
    }

    /// A port that nobody holds now.
    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn sound() -> String {
        format!(
            "listeners: [{{ name: pop, protocol: pop3, bind: '127.0.0.1:{}', upstream: box }}]\n\
             upstreams: {{ box: {{ protocol: pop3, servers: 'mail:110' }} }}\n\
             store: {{ path: STORE }}\n",
            free_port()
        )
    }

    #[test]
    fn a_sound_file_gives_the_table() {
        let (text, faults) = printed(&sound(), false);
        assert_eq!(faults, 0, "{text}");
        for part in ["pop3", "mail:110", "gatepost.yaml: sound; 7 rules built in; 0 faults"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn faults_are_printed_with_place_remedy_and_count() {
        let text = sound().replace("upstream: box", "upstream: bix") + "admin: {}\n";
        let (text, faults) = printed(&text, false);
        assert_eq!(faults, 1);
        assert!(text.contains("no upstream is called `bix`\n  fix: did you mean `box`?\n"), "{text}");
        assert!(text.contains("gatepost.yaml:4:1: warning: `admin` is not supported"), "{text}");
        assert!(text.ends_with("gatepost.yaml: 1 fault, 1 warning\n"), "{text}");
    }

    #[test]
    fn json_has_faults_and_warnings() {
        let (text, _) = printed("listeners: 5\nupstreams: {}\nadmin: {}\nstore: { path: STORE }\n", true);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["faults"][0]["line"], 1);
        assert_eq!(report["faults"][0]["column"], 12);
        assert_eq!(report["warnings"][0]["problem"], "`admin` is not supported by this version yet");
    }

    #[test]
    fn a_held_port_and_a_missing_file_are_told() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let text = sound().replace("box }]", "box }]  ");
        let port = held.local_addr().unwrap().port().to_string();
        let begin = text.find("127.0.0.1:").unwrap() + 10;
        let end = begin + text[begin..].find('\'').unwrap();
        let (text, faults) = printed(&format!("{}{port}{}", &text[..begin], &text[end..]), false);
        assert_eq!(faults, 1, "{text}");
        assert!(text.contains("is in use by `"), "{text}");

        let outcome = examine(Some(Path::new("/nowhere/gatepost.yaml")), |_| Ok(0));
        assert!(outcome.faults[0].to_string().starts_with("/nowhere/gatepost.yaml: cannot be read"));
    }
}
