//! The destination as the kit plays it: it answers by script, in one [`Weather`] or another, and remembers everything
//! that reached it. It outlives the plugin's instances, as a real one does.

use std::{collections::BTreeMap, fmt};

use parking_lot::Mutex;

use super::case::{Answer, Rule};
use crate::{
    call::{HttpError, HttpResponse},
    egress::Rehearsed,
};

/// What befalls requests.
#[derive(Clone, Debug)]
pub(super) enum Weather {
    /// Answers by script.
    Fair,
    /// This, to every request.
    Every(Answer),
    /// This to the request of that number, from 0; the others by script.
    Nth(usize, Answer),
    /// No answer, but this error.
    Fails(HttpError),
    /// This status, and the request's headers as the body.
    Echo(u16),
    /// A body as long as the guest takes, and more.
    Flood,
}

#[derive(Clone, Debug)]
enum Script {
    Rules(Vec<Rule>),
    /// One after the other; the last one stays.
    InOrder(Vec<Answer>),
}

/// One request that arrived, with secrets as on the wire.
#[derive(Clone)]
pub(super) struct Sent {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What was answered, if anything was.
    pub status: Option<u16>,
}

impl Sent {
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Everything of it in which something can be found.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let headers = self.headers.iter().map(|(_, value)| value.as_bytes());
        [self.url.as_bytes(), self.body.as_slice()].into_iter().chain(headers)
    }

    pub fn holds(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.parts().any(|part| part.windows(text.len().max(1)).any(|window| window == text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Sent {
    /// Without headers and body: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {:?}", self.method, self.url, self.status)
    }
}

pub(super) struct Destination {
    script: Script,
    weather: Weather,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    sent: Vec<Sent>,
    kept: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("weather", &self.weather).finish_non_exhaustive()
    }
}

impl Destination {
    pub fn with_rules(rules: &[Rule], weather: Weather) -> Self {
        Self { script: Script::Rules(rules.to_vec()), weather, seen: Mutex::default() }
    }

    pub fn in_order(answers: &[Answer]) -> Self {
        Self { script: Script::InOrder(answers.to_vec()), weather: Weather::Fair, seen: Mutex::default() }
    }

    /// What arrived so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.seen.lock().sent.clone()
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().sent.len()
    }

    /// Takes a request and answers it.
    pub fn answer(&self, request: Rehearsed) -> Result<HttpResponse, HttpError> {
        let mut seen = self.seen.lock();
        let number = seen.sent.len();
        let Rehearsed { method, url, headers, body, response_bytes } = request;
        let mut sent = Sent { method, url, headers, body, status: None };
        let answered = match &self.weather {
            Weather::Fair => Ok(self.script(&mut seen, &sent)),
            Weather::Every(answer) => Ok(response(answer)),
            Weather::Nth(nth, answer) if *nth == number => Ok(response(answer)),
            Weather::Nth(..) => Ok(self.script(&mut seen, &sent)),
            Weather::Fails(error) => Err(error.clone()),
            Weather::Echo(status) => Ok(echo(*status, &sent)),
            Weather::Flood => Ok(HttpResponse { truncated: true, ..flood(response_bytes) }),
        };
        sent.status = answered.as_ref().ok().map(|response| response.status);
        seen.sent.push(sent);
        answered.map(|mut response| {
            response.truncated |= response.body.len() > response_bytes;
            response.body.truncate(response_bytes);
            response
        })
    }

    /// A request whose fate was decided elsewhere.
    pub fn note(&self, sent: Sent) {
        self.seen.lock().sent.push(sent);
    }

    fn script(&self, seen: &mut Seen, sent: &Sent) -> HttpResponse {
        match &self.script {
            Script::InOrder(answers) => {
                let place = seen.sent.len().min(answers.len().saturating_sub(1));
                response(&answers.get(place).cloned().unwrap_or_default())
            }
            Script::Rules(rules) => {
                let Some(rule) = rules.iter().find(|rule| fits(rule, sent)) else {
                    return response(&Answer::default());
                };
                let answer = of_rule(rule, seen);
                if let Some(name) = rule.keep.as_ref().filter(|_| (200..300).contains(&answer.status)) {
                    seen.kept.insert(name.clone(), sent.body.clone());
                }
                answer
            }
        }
    }
}

fn fits(rule: &Rule, sent: &Sent) -> bool {
    let has = |wanted: &Option<String>, text: &str| {
        wanted.as_ref().is_none_or(|wanted| text.contains(wanted.as_str()))
    };
    rule.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&sent.method))
        && has(&rule.url, &sent.url)
        && has(&rule.contains, &String::from_utf8_lossy(&sent.body))
}

fn of_rule(rule: &Rule, seen: &Seen) -> HttpResponse {
    let answer = Answer { status: rule.status, headers: rule.headers.clone(), body: rule.body.clone() };
    match &rule.kept {
        None => response(&answer),
        Some(name) => match seen.kept.get(name) {
            Some(body) => HttpResponse { body: body.clone(), ..response(&answer) },
            None => response(&Answer::status(404)),
        },
    }
}

fn response(answer: &Answer) -> HttpResponse {
    let headers = answer.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    HttpResponse {
        status: answer.status,
        headers: headers.collect(),
        body: answer.body.as_bytes().to_vec(),
        truncated: false,
    }
}

fn echo(status: u16, sent: &Sent) -> HttpResponse {
    let mut body = String::new();
    for (name, value) in &sent.headers {
        body.push_str(&format!("{name}: {value}\n"));
    }
    let headers = vec![("x-echo".to_owned(), sent.header("authorization").unwrap_or_default().to_owned())];
    HttpResponse { status, headers, body: body.into_bytes(), truncated: false }
}

fn flood(bytes: usize) -> HttpResponse {
    HttpResponse { status: 200, headers: Vec::new(), body: vec![b'x'; bytes], truncated: false }
}
