//! `compare doctor`: what runs here, with evidence and remedies.

use anyhow::Result;
use compare_cgroup::Finding;

use crate::{exit::Code, place::Abilities};

pub fn run(json: bool) -> Result<Code> {
    let abilities = Abilities::probe();
    let both = abilities.obstacles(&["container".to_owned(), "microvm".to_owned()]).is_empty();
    let code = match (both, abilities.has_lab()) {
        (true, _) => Code::Success,
        (false, true) => Code::LabOnly,
        (false, false) => Code::Nowhere,
    };
    if json {
        print_json(&abilities, code)?;
    } else {
        print_text(&abilities, code);
    }
    Ok(code)
}

fn kvm_finding(abilities: &Abilities) -> Finding {
    Finding {
        name: "kvm",
        ok: abilities.has_kvm(),
        evidence: abilities.kvm.evidence.join("; "),
        remedy: abilities.kvm.remedy.clone(),
    }
}

fn print_text(abilities: &Abilities, code: Code) {
    let print = |finding: &Finding| {
        let verdict = if finding.ok { "ok  " } else { "FAIL" };
        println!("  {verdict}  {:<12} {}", finding.name, finding.evidence);
        if let Some(remedy) = finding.remedy.as_ref().filter(|_| !finding.ok) {
            println!("        {:<12} remedy: {remedy}", "");
        }
    };
    println!("microVM");
    print(&kvm_finding(abilities));
    println!("container (and the microVM's cgroup and network)");
    abilities.container.iter().for_each(print);
    println!("lab, the emulated host");
    abilities.lab.iter().for_each(print);
    println!("\n{}", verdict(code));
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
        "lab": list(&abilities.lab),
    });
    println!("{}", serde_json::to_string_pretty(&whole)?);
    Ok(())
}
