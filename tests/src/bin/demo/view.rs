//! The live view: who answers, what the balancers say, what to try.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    os::unix::process::parent_id,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_daemon::{
    admin::{Rates, table},
    core::Status,
};

use crate::{
    acts::Act,
    cut::cut,
    hosts::{self, Seen},
    lasting::Counting,
    relay,
    stage::{BALANCERS, Stage},
    terminal::{Input, Terminal},
    traffic::{FAILED, Traffic},
};

/// How often the view is drawn anew.
const PERIOD: Duration = Duration::from_secs(1);

/// Ports of the loopback that lead to the virtual address.
const WEB_RELAY: u16 = 8080;
const MYSQL_RELAY: u16 = 13306;

const WELCOME: &str = "Try k: it kills the master, and the MySQL session below goes on. Watch who is master, and who answers; then r. Or 1: it kills web1.";

/// Brings everything up and shows it until a person has seen enough.
pub(crate) fn show() -> Result<()> {
    let parent = parent_id();
    let mut stage = Stage::set(|step| tell(&format!("  {step} ...")))?;
    let doors = Doors::open(&stage)?;
    let traffic = Traffic::start(&stage);
    let counting = Counting::start(&stage);
    let terminal = Terminal::take()?;
    let mut view = View::new(&stage, doors, counting);
    // Without a parent there is nobody to tidy up after a kill, so it is time to go.
    while parent_id() == parent {
        view.look(&stage, &traffic);
        view.draw()?;
        let key = match Terminal::key(view.next_look())? {
            Input::Key(key) => key,
            Input::Nothing => continue,
            Input::HungUp => break,
        };
        match Act::of(key) {
            Some(Act::Quit) => break,
            Some(act) => view.act(act, &mut stage, &terminal)?,
            None => {}
        }
    }
    drop(terminal);
    tell("  taking everything down ...");
    drop(stage);
    if parent_id() != parent {
        remove_own_directory();
    }
    Ok(())
}

/// Removes the directory that `cargo xtask demo` made for our files, and would have removed.
fn remove_own_directory() {
    let directory = env::temp_dir();
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("tandem-demo-") {
        // The next demo would do it as well.
        let _ = fs::remove_dir_all(directory);
    }
}

/// The ways in for a person at another terminal.
struct Doors {
    web: String,
    mysql: String,
    shell: String,
}

impl Doors {
    fn open(stage: &Stage) -> Result<Self> {
        let client = stage.pair.client();
        let web = relay::open(client, stage.web(), WEB_RELAY)?;
        let mysql = relay::open(client, stage.mysql(), MYSQL_RELAY)?;
        Ok(Self {
            web: format!("curl http://{web}/"),
            mysql: format!("mariadb -h {} -P {} -u lab -plab", mysql.ip(), mysql.port()),
            shell: format!("nsenter --net={} --mount={}", client.net_path(), client.mount_path()),
        })
    }
}

struct View {
    doors: Doors,
    /// The session that is to outlive the balancers.
    counting: Counting,
    message: String,
    looked: Option<Look>,
    names: [String; 2],
    hosts: [Seen; 2],
    /// The balancer whose table is shown: the last that was the master.
    shown: usize,
    /// Requests answered in the last period, by who answered.
    answers: BTreeMap<String, f64>,
}

/// When was looked last, and what the clients had counted then.
struct Look {
    at: Instant,
    answers: BTreeMap<String, u64>,
}

impl View {
    fn new(stage: &Stage, doors: Doors, counting: Counting) -> Self {
        Self {
            doors,
            counting,
            message: WELCOME.into(),
            looked: None,
            names: BALANCERS.map(|host| stage.twin(host).name().to_owned()),
            hosts: Default::default(),
            shown: 0,
            answers: BTreeMap::new(),
        }
    }

    fn next_look(&self) -> Duration {
        let age = self.looked.as_ref().map_or(PERIOD, |look| look.at.elapsed());
        PERIOD.saturating_sub(age)
    }

    /// Asks the balancers and the clients, if a period has gone by.
    fn look(&mut self, stage: &Stage, traffic: &Traffic) {
        if !self.next_look().is_zero() {
            return;
        }
        let now = Look { at: Instant::now(), answers: traffic.answers() };
        let elapsed = self.looked.as_ref().map_or(PERIOD, |before| now.at - before.at);
        for (host, seen) in self.hosts.iter_mut().enumerate() {
            let status = stage.status(host);
            seen.answers = status.is_some();
            if let Some(new) = status {
                let old = seen.status.as_ref();
                seen.rates = old.map(|old| Rates::between(old, &new, elapsed)).unwrap_or_default();
                seen.status = Some(new);
            }
        }
        if let Some(master) = self.hosts.iter().position(Seen::is_master) {
            self.shown = master;
        }
        if let Some(before) = &self.looked {
            self.answers = per_second(&before.answers, &now.answers, elapsed);
        }
        self.looked = Some(now);
    }

    fn act(&mut self, act: Act, stage: &mut Stage, terminal: &Terminal) -> Result<()> {
        if let Some(announcement) = act.announcement(stage) {
            self.message = announcement;
            self.draw()?;
        }
        self.message = act.run(stage, terminal).unwrap_or_else(|error| format!("{error:#}"));
        if self.message.is_empty() {
            self.message = WELCOME.into();
        }
        Ok(())
    }

    fn draw(&self) -> Result<()> {
        let (columns, rows) = Terminal::size();
        let status = self.hosts[self.shown].status.clone();
        let mut status = status.context("the balancer has not answered once")?;
        // They have lines of their own, for both balancers.
        status.groups.clear();
        Terminal::draw(&self.compose(&mut status, columns, rows))
    }

    /// The lines of the screen: balancers and table, cut to what room there is, above what must be
    /// seen; how to get in from outside if there is room for that, too.
    fn compose(&self, status: &mut Status, columns: usize, rows: usize) -> Vec<String> {
        let mut below = vec![String::new(), self.answers_line(), self.counting.line()];
        below.extend(wrap(&self.message, columns).into_iter().map(|line| bold(&line)));
        below.extend(keys());
        let outside = self.outside();
        let room = rows.saturating_sub(below.len());
        let table = self.table(status, room, outside.len());
        let mut above: Vec<_> =
            self.host_lines().into_iter().chain(table.lines().map(str::to_owned)).collect();
        if above.len() > room {
            above.retain(|line| !line.is_empty());
        }
        if above.len() + outside.len() <= room {
            below.extend(outside);
        }
        let above = above.into_iter().take(room);
        above.chain(below).take(rows).map(|line| cut(&line, columns)).collect()
    }

    /// The table of the master: with everything if that leaves room for so many lines more.
    fn table(&self, status: &mut Status, room: usize, more: usize) -> String {
        let rates = Some(&self.hosts[self.shown].rates);
        let room = room.saturating_sub(self.host_lines().len());
        let table = table::render(status, true, rates);
        if table.lines().count() + more <= room {
            return table;
        }
        let table = table::render_brief(status, true, rates);
        if table.lines().count() <= room {
            return table;
        }
        // The longest of all problems is told by its first line, too.
        if let Some(error) = &mut status.config.last_error {
            error.truncate(error.find('\n').unwrap_or(error.len()));
        }
        table::render_brief(status, true, rates)
    }

    fn host_lines(&self) -> Vec<String> {
        let lines = self.names.iter().zip(&self.hosts).map(|(name, host)| host.line(name));
        [bold(&hosts::titles())].into_iter().chain(lines).chain([String::new()]).collect()
    }

    fn answers_line(&self) -> String {
        let rate = |name: &str| self.answers.get(name).copied().unwrap_or_default();
        let answered: Vec<_> =
            Stage::backends().map(|name| format!("{name} {:.0}", rate(name))).collect();
        let failed = rate(FAILED);
        let colour = if failed > 0.0 { "\x1b[31m" } else { "" };
        format!("ANSWERS PER SECOND   {}  {colour}failed {failed:.0}\x1b[0m", answered.join("  "))
    }

    fn outside(&self) -> [String; 3] {
        let Doors { web, mysql, shell } = &self.doors;
        [
            format!("from outside: {web}"),
            format!("              {mysql}"),
            format!("client shell: {shell}"),
        ]
    }
}

fn keys() -> [String; 4] {
    let numbers: Vec<_> =
        (1..).zip(Stage::backends()).map(|(number, name)| format!("{number} {name}")).collect();
    [
        String::new(),
        "balancers: k kill -9 the master  r restart  c pull or plug cable  f hand over".into(),
        format!("backends:  kill or start {}  d drain web2", numbers.join("  ")),
        "i invalid reload  s client shell  b balancer shell  m MySQL  q end".into(),
    ]
}

fn per_second(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    elapsed: Duration,
) -> BTreeMap<String, f64> {
    let rate = |(name, now): (&String, &u64)| {
        let new = now.saturating_sub(before.get(name).copied().unwrap_or_default());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people to look at")]
        let rate = new as f64 / elapsed.as_secs_f64();
        (name.clone(), rate)
    };
    after.iter().map(rate).collect()
}

/// Breaks a text into lines at its spaces, and at the ends of its lines.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for word in line.split(' ') {
            let room = width.saturating_sub(current.chars().count() + 1);
            if !current.is_empty() && word.chars().count() > room {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current += word;
        }
        lines.push(current);
    }
    lines
}

fn bold(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

/// Says something on a terminal that may be gone.
fn tell(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable x", 4), ["unbreakable", "x"]);
        assert_eq!(wrap("a\nb", 80), ["a", "b"]);
    }

    #[test]
    fn rates_are_of_the_last_period() {
        let [before, after] = [10, 40].map(|n| BTreeMap::from([("web1".to_owned(), n)]));
        let rates = per_second(&before, &after, Duration::from_secs(2));
        assert!((rates["web1"] - 15.0).abs() < f64::EPSILON);
    }
}
