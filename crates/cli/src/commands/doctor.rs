//! `compare doctor`: what runs here, with evidence and remedies.

use anyhow::Result;
use compare_cgroup::Finding;
use compare_image::Purpose;

use crate::{
    exit::Code,
    output::print,
    place::{self, Abilities},
};

pub fn run(json: bool) -> Result<Code> {
    let abilities = Abilities::of_this_user();
    let both = abilities.obstacles(&["container".to_owned(), "microvm".to_owned()]).is_empty();
    let code = match (both, abilities.has_lab()) {
        (true, _) => Code::Success,
        (false, true) => Code::LabOnly,
        (false, false) => Code::Nowhere,
    };
    if json {
        print_json(&abilities, code)?;
    } else {
        print_text(&abilities, code)?;
    }
    Ok(code)
}

/// `compare obstacles`: what [`place::choose`] asks for in a process of its own, since there is no way
/// back from a user namespace.
pub fn obstacles(backends: &[String]) -> Result<Code> {
    let abilities = Abilities::of_this_user();
    print(
        &abilities.obstacles(backends).iter().map(|line| format!("{line}\n")).collect::<String>(),
    )?;
    Ok(Code::Success)
}

fn kvm_finding(abilities: &Abilities) -> Finding {
    Finding {
        name: "kvm",
        ok: abilities.has_kvm(),
        evidence: abilities.kvm.evidence.join("; "),
        remedy: abilities.kvm.remedy.clone(),
    }
}

fn print_text(abilities: &Abilities, code: Code) -> Result<()> {
    let mut text = "microVM\n".to_owned();
    text += &line(&kvm_finding(abilities));
    text.extend(abilities.microvm.iter().map(line));
    text += &line(&place::snapshots());
    text += "container, and the microVM's cgroup and network\n";
    text.extend(abilities.container.iter().map(line));
    text += "set-up\n";
    for (purpose, name) in PURPOSES {
        let of =
            || abilities.setup.iter().filter(|(of, _)| *of == purpose).map(|(_, finding)| finding);
        if of().all(|finding| finding.ok) {
            let programs: Vec<&str> = of().map(|finding| finding.name).collect();
            text += &line(&Finding { name, ok: true, evidence: programs.join(", "), remedy: None });
        } else {
            text.extend(of().filter(|finding| !finding.ok).map(line));
        }
    }
    text += &format!("\n{}\n", verdict(code));
    print(&text)
}

const PURPOSES: [(Purpose, &str); 3] = [
    (Purpose::Image, "root file systems"),
    (Purpose::GuestKernel, "guest kernel"),
    (Purpose::Lab, "lab"),
];

fn line(finding: &Finding) -> String {
    let verdict = if finding.ok { "ok  " } else { "FAIL" };
    let mut text = format!("  {verdict}  {:<18}  {}\n", finding.name, finding.evidence);
    if let Some(remedy) = finding.remedy.as_ref().filter(|_| !finding.ok) {
        text += &format!("        {:<18}  remedy: {remedy}\n", "");
    }
    text
}

fn verdict(code: Code) -> &'static str {
    match code {
        Code::Success => "Both backends run on this host.",
        Code::LabOnly => {
            "This host cannot run both backends; `compare run` uses the lab and says so."
        }
        _ => "Neither this host nor the lab can run both backends; see the remedies above.",
    }
}

fn print_json(abilities: &Abilities, code: Code) -> Result<()> {
    let finding = |finding: &Finding| {
        serde_json::json!({
            "name": finding.name, "ok": finding.ok, "evidence": finding.evidence, "remedy": finding.remedy,
        })
    };
    let list = |findings: &[Finding]| findings.iter().map(finding).collect::<Vec<_>>();
    let whole = serde_json::json!({
        "schema": "compare-doctor/1",
        "exit_code": code as u8,
        "verdict": verdict(code),
        "kvm": { "kind": abilities.kvm.kind, "checks": [finding(&kvm_finding(abilities))] },
        "container": list(&abilities.container),
        "microvm": list(&abilities.microvm),
        "snapshots": [finding(&place::snapshots())],
        "setup": abilities.setup.iter().map(|(_, one)| finding(one)).collect::<Vec<_>>(),
    });
    print(&format!("{}\n", serde_json::to_string_pretty(&whole)?))
}
