//! Rows of an application that nobody has: the same for each run, and made faster than a server takes them.

use std::fmt::Write as _;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt as _;
use shareddb_core::Session;

/// Text, JSON and numbers, with the indexes that such tables have.
const TABLES: &str = "
    CREATE TABLE articles (id bigint PRIMARY KEY, author int NOT NULL, title text NOT NULL, body text NOT NULL, published timestamptz);
    CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, kind text NOT NULL, data jsonb NOT NULL);
    CREATE TABLE readings (sensor int, at timestamptz, value float8 NOT NULL, amount numeric(12, 2) NOT NULL, good boolean, PRIMARY KEY (sensor, at))";
const INDEXES: &str = "
    CREATE INDEX ON articles (author, published);
    CREATE INDEX ON articles (title text_pattern_ops);
    CREATE INDEX ON events (at);
    CREATE INDEX ON events ((data ->> 'user'));
    CREATE INDEX ON readings (at)";
/// Each table with its share of all, in percent.
const SHARES: [(&str, Row, usize); 3] = [("articles", article, 40), ("events", event, 35), ("readings", reading, 25)];
/// What is sent at once.
const CHUNK: usize = 256 << 10;
const WORDS: usize = 4000;
const SYLLABLES: [&str; 24] = [
    "al", "ber", "co", "den", "e", "fir", "gan", "ho", "in", "ju", "ka", "len", "mo", "ner", "o", "pas", "qui", "ran",
    "se", "ti", "u", "vor", "wen", "zy",
];

type Row = fn(&mut Author, u64, &mut String);

/// Fills the database of a session with about so many bytes of rows, as COPY counts them.
pub async fn fill(session: &Session, bytes: usize) {
    session.batch_execute(TABLES).await.expect("an empty schema");
    let mut author = Author::new();
    for (table, row, share) in SHARES {
        let sink = session.copy_in(&format!("COPY {table} FROM STDIN")).await.expect("a copy");
        let mut sink = pin!(sink);
        let (mut text, mut sent, mut number) = (String::new(), 0, 0);
        while sent < bytes / 100 * share {
            while text.len() < CHUNK {
                number += 1;
                row(&mut author, number, &mut text);
                text.push('\n');
            }
            sent += text.len();
            sink.send(Bytes::from(std::mem::take(&mut text))).await.expect("the server takes it");
        }
        sink.finish().await.expect("the server takes it");
    }
    session.batch_execute(INDEXES).await.expect("indexes");
    session.batch_execute("ANALYZE").await.expect("statistics");
}

fn article(author: &mut Author, number: u64, text: &mut String) {
    let _ = write!(text, "{number}\t{}\t", author.below(5000));
    author.words(6, text);
    text.push('\t');
    let length = 80 + author.below(400);
    author.words(length, text);
    text.push('\t');
    author.time(number, text);
}

fn event(author: &mut Author, number: u64, text: &mut String) {
    let kind = ["login", "logout", "view", "purchase", "search"][author.below(5) as usize];
    let _ = write!(text, "{number}\t");
    author.time(number, text);
    let (user, price) = (author.below(20_000), author.below(100_000));
    let _ =
        write!(text, "\t{kind}\t{{\"user\": \"u{user}\", \"price\": {}.{:02}, \"tags\": [\"", price / 100, price % 100);
    author.words(1, text);
    text.push_str("\", \"");
    author.words(1, text);
    let _ = write!(text, "\"], \"session\": \"{:016x}\", \"query\": \"", author.next());
    author.words(5, text);
    text.push_str("\"}");
}

fn reading(author: &mut Author, number: u64, text: &mut String) {
    let _ = write!(text, "{}\t", number % 200);
    author.time(number, text);
    let (value, amount) = (author.next() as f64 / u64::MAX as f64 * 40.0, author.below(1_000_000));
    let _ =
        write!(text, "\t{value}\t{}.{:02}\t{}", amount / 100, amount % 100, if amount % 7 == 0 { "f" } else { "t" });
}

/// Makes up what stands in the rows.
struct Author {
    state: u64,
    words: Vec<String>,
}

impl Author {
    fn new() -> Self {
        let mut author = Self { state: 0x2545_f491_4f6c_dd1d, words: Vec::new() };
        author.words = (0..WORDS)
            .map(|_| {
                let length = 1 + author.below(4);
                (0..length).map(|_| SYLLABLES[author.below(SYLLABLES.len() as u64) as usize]).collect()
            })
            .collect();
        author
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Some words are used more than others.
    fn words(&mut self, count: u64, text: &mut String) {
        for index in 0..count {
            if index > 0 {
                text.push(' ');
            }
            let part = self.below(WORDS as u64);
            let at = part * self.below(WORDS as u64) / WORDS as u64;
            text.push_str(&self.words[at as usize]);
        }
    }

    /// Every row a little later than the one before.
    fn time(&mut self, number: u64, text: &mut String) {
        let seconds = number * 7 + self.below(7);
        let (day, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = (2015 + day / 336, 1 + day % 336 / 28, 1 + day % 28);
        let (hour, minute, second, rest) = (second / 3600, second % 3600 / 60, second % 60, self.below(1_000_000));
        let _ = write!(text, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{rest:06}+00");
    }
}
