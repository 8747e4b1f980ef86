//! The answer as HTTP: the texts of the well-known `mysqlchk`, which balancers look for.

use super::Verdict;

const GOOD: &str = "<html><body>MySQL is running.</body></html>";
const BAD: &str = "<html><body>MySQL is *down*.</body></html>";

/// The whole answer; without its body for a `HEAD`.
pub(super) fn render(verdict: &Verdict, with_body: bool) -> String {
    let (status, body) = match verdict {
        Verdict::Fit(_) => ("200 OK", GOOD.to_owned()),
        Verdict::Unfit(why) => ("503 Service Unavailable", format!("{BAD}\r\n{}\r\n", escape(why))),
    };
    let length = body.len();
    let shown = if with_body { &body } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{shown}"
    )
}

/// What servers say is no HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_answer_is_that_of_mysqlchk() {
        let answer = render(&Verdict::Fit("wsrep_local_state is 4".into()), true);
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 43\r\n\
                        Connection: close\r\n\r\n<html><body>MySQL is running.</body></html>";
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_bad_answer_has_the_reason_after_the_text_of_mysqlchk() {
        let answer = render(&Verdict::Unfit("no <state>".into()), true);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "<html><body>MySQL is *down*.</body></html>\r\nno &lt;state&gt;\r\n");
    }

    #[test]
    fn a_head_has_the_same_head_and_no_body() {
        let verdict = Verdict::Unfit("why".into());
        let (whole, head) = (render(&verdict, true), render(&verdict, false));
        assert_eq!(whole.split_once("\r\n\r\n").unwrap().0, head.strip_suffix("\r\n\r\n").unwrap());
    }
}
