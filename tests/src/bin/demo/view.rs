//! The live view: who answers, what the balancer says, what to try.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    os::unix::process::parent_id,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_daemon::{
    admin::{Rates, client, table},
    core::Status,
};

use crate::{
    acts::Act,
    cut::cut,
    relay,
    stage::Stage,
    terminal::{Input, Terminal},
    traffic::{FAILED, Traffic},
};

/// How often the view is drawn anew.
const PERIOD: Duration = Duration::from_secs(1);

/// Ports of the loopback that lead to the virtual address.
const WEB_RELAY: u16 = 8080;
const MYSQL_RELAY: u16 = 13306;

const WELCOME: &str = "Try 1: it kills web1. Watch its state, and who answers; then 1 again.";

/// Brings everything up and shows it until a person has seen enough.
pub(crate) fn show() -> Result<()> {
    let parent = parent_id();
    let mut stage = Stage::set(|step| tell(&format!("  {step} ...")))?;
    let doors = Doors::open(&stage)?;
    let traffic = Traffic::start(&stage);
    let terminal = Terminal::take()?;
    let mut view = View::new(doors);
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
        let client = stage.lab.client();
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
    message: String,
    looked: Option<Look>,
    rates: Rates,
    /// Requests answered in the last period, by who answered.
    answers: BTreeMap<String, f64>,
}

/// What was seen at one moment.
struct Look {
    at: Instant,
    status: Option<Status>,
    answers: BTreeMap<String, u64>,
}

impl View {
    fn new(doors: Doors) -> Self {
        let (rates, answers) = (Rates::default(), BTreeMap::new());
        Self { doors, message: WELCOME.into(), looked: None, rates, answers }
    }

    fn next_look(&self) -> Duration {
        let age = self.looked.as_ref().map_or(PERIOD, |look| look.at.elapsed());
        PERIOD.saturating_sub(age)
    }

    /// Asks the balancer and the clients, if a period has gone by.
    fn look(&mut self, stage: &Stage, traffic: &Traffic) {
        if !self.next_look().is_zero() {
            return;
        }
        let status = client::status(stage.tandem.socket()).ok();
        let now = Look { at: Instant::now(), status, answers: traffic.answers() };
        if let Some(before) = &self.looked {
            let elapsed = now.at - before.at;
            if let (Some(old), Some(new)) = (&before.status, &now.status) {
                self.rates = Rates::between(old, new, elapsed);
            }
            self.answers = per_second(&before.answers, &now.answers, elapsed);
        }
        // A daemon that is dead is shown as it was seen last.
        let last = self.looked.take().and_then(|look| look.status);
        self.looked = Some(Look { status: now.status.or(last), ..now });
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
        let status = self.looked.as_ref().and_then(|look| look.status.as_ref());
        let mut status = status.cloned().context("the balancer has not answered once")?;
        Terminal::draw(&self.compose(&mut status, columns, rows))
    }

    /// The lines of the screen: the table, cut to what room there is, above what must be seen.
    fn compose(&self, status: &mut Status, columns: usize, rows: usize) -> Vec<String> {
        let mut below = vec![String::new(), self.answers_line()];
        below.extend(wrap(&self.message, columns).into_iter().map(|line| bold(&line)));
        below.extend(self.help());
        let room = rows.saturating_sub(below.len());
        let mut above = table::render(status, true, Some(&self.rates));
        if above.lines().count() > room {
            above = table::render_brief(status, true, Some(&self.rates));
        }
        if above.lines().count() > room {
            // The longest of all problems is told by its first line, too.
            let error = status.config.last_error.as_mut();
            if let Some(error) = error {
                error.truncate(error.find('\n').unwrap_or(error.len()));
            }
            above = table::render_brief(status, true, Some(&self.rates));
        }
        let above = above.lines().take(room).map(str::to_owned);
        above.chain(below).take(rows).map(|line| cut(&line, columns)).collect()
    }

    fn answers_line(&self) -> String {
        let rate = |name: &str| self.answers.get(name).copied().unwrap_or_default();
        let answered: Vec<_> =
            Stage::backends().map(|name| format!("{name} {:.0}", rate(name))).collect();
        let failed = rate(FAILED);
        let colour = if failed > 0.0 { "\x1b[31m" } else { "" };
        format!("ANSWERS PER SECOND   {}  {colour}failed {failed:.0}\x1b[0m", answered.join("  "))
    }

    fn help(&self) -> [String; 6] {
        let numbers: Vec<_> =
            (1..).zip(Stage::backends()).map(|(number, name)| format!("{number} {name}")).collect();
        let numbers = numbers.join("  ");
        let Doors { web, mysql, shell } = &self.doors;
        [
            String::new(),
            format!("kill or start:  {numbers}  k tandem itself"),
            "d drain web3  i invalid reload  s client shell  b balancer shell  m MySQL  q end"
                .into(),
            format!("from outside:   {web}"),
            format!("                {mysql}"),
            format!("client shell:   {shell}"),
        ]
    }
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
