//! What a daemon leaves on its host.

use std::{fs, io::ErrorKind, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Lab, wait::until};

impl Lab {
    /// The balancer's interfaces that have an XDP program, and the files on its bpffs.
    pub fn traces(&self) -> Result<Vec<String>> {
        let links = self.balancer().ip("-json link show")?;
        let links: serde_json::Value = serde_json::from_str(&links)?;
        let links = links.as_array().context("`ip` shows a list of links")?;
        let names = links.iter().filter(|link| !link["xdp"].is_null()).map(|link| &link["ifname"]);
        let mut traces: Vec<String> = names.map(|name| format!("XDP on {name}")).collect();
        match self.balancer().enter(|| fs::read_dir("/sys/fs/bpf")) {
            Ok(files) => {
                for file in files {
                    let path = file?.path();
                    // The kernel's own, on every bpffs.
                    if path.extension().is_none_or(|extension| extension != "debug") {
                        traces.push(path.display().to_string());
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(traces)
    }

    /// Fails unless the balancer is, or becomes within a moment, as if no daemon had ever run:
    /// the kernel takes a program off a little after its last file is gone.
    pub fn no_traces(&self) -> Result<()> {
        until("a host without traces of the daemon", Duration::from_secs(5), || {
            let traces = self.traces()?;
            ensure!(traces.is_empty(), "there are {traces:?}");
            Ok(())
        })
    }
}
