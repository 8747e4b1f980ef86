//! A real nginx.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Namespace, Process, http_get, wait::until};

/// An nginx on a host. Dropping it kills it.
///
/// `GET /` answers with the name of the host and a newline, `GET /health` with 200 or, at will,
/// 503, and everything else comes from its [`root`](Nginx::root).
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    root: PathBuf,
}

impl Nginx {
    /// Starts it on a port of all addresses of a host and waits until it answers.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        let home = host.dir().join(format!("{}-nginx-{port}", host.name()));
        let root = home.join("root");
        fs::create_dir_all(&root)?;
        let file = home.join("nginx.conf");
        fs::write(&file, configuration(host.name(), port, &home))?;
        let process = host.command("nginx").arg("-e").arg("stderr").arg("-c").arg(&file).spawn()?;
        let nginx = Self { process, root };
        nginx.healthy(true)?;

        let what = format!("an answer of nginx on {}", host.name());
        let local = SocketAddr::new([127, 0, 0, 1].into(), port);
        until(&what, Duration::from_secs(10), || http_get(host, local, "/"))
            .map_err(|error| nginx.process.explain(&error))?;
        Ok(nginx)
    }

    /// Makes `/health` answer with 200 or 503 from now on.
    pub fn healthy(&self, yes: bool) -> Result<()> {
        let file = self.root.join("health");
        if yes {
            return fs::write(&file, "fine\n").context("cannot make nginx healthy");
        }
        fs::remove_file(&file).context("nginx is not healthy already")
    }

    /// The directory of its files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be frozen by `SIGSTOP` or killed.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn configuration(name: &str, port: u16, home: &Path) -> String {
    let home = home.display();
    let scratch: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|part| format!("    {part}_temp_path {home}/{part};\n"))
        .concat();
    format!(
        "\
daemon off;
user root;
worker_processes 1;
pid {home}/pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    reset_timedout_connection on;
{scratch}
    server {{
        listen [::]:{port} ipv6only=off backlog=4096;
        root {home}/root;
        default_type text/plain;
        location = / {{ return 200 \"{name}\\n\"; }}
        location = /health {{ try_files /health =503; }}
    }}
}}
"
    )
}
