//! `compare workloads`

use anyhow::Result;

use crate::{
    args::Workloads,
    exit::{Code, coded},
    output::print,
};

pub fn run(command: Workloads) -> Result<Code> {
    match command {
        Workloads::List => {
            let mut text = String::new();
            for (name, _) in compare_image::builtin() {
                let workload = compare_image::load(name)?;
                text += &format!("{name:<12} {}\n", workload.description);
            }
            text += "\nYour own: compare workloads show nginx > mine.toml, edit it, compare run --workload ./mine.toml\n";
            print(&text)?;
        }
        Workloads::Show { name } => {
            let known = compare_image::builtin().iter().find(|(known, _)| *known == name);
            let Some((_, text)) = known else {
                // `load` knows how to say what there is instead.
                compare_image::load(&name)?;
                return Err(coded(
                    Code::Usage,
                    format!("{name}: only built-in workloads can be shown"),
                ));
            };
            print(text)?;
        }
    }
    Ok(Code::Success)
}
