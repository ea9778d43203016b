//! `floodmark query "SQL"`: a table, JSON, or a stream of CSV or NDJSON without a cut.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::remote::{self, Failure, Remote};
use super::table::Table;
use crate::client::{Call, Client};

/// Asks in SQL; tables are the datasets: events, spans, logs, metrics, audit, latency
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// One SELECT; `-` reads it from standard input
    sql: String,
    /// How to print the rows; csv and ndjson stream, so they are never cut
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
    Ndjson,
    Csv,
}

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move { query(args).await })
}

async fn query(args: Args) -> Result<ExitCode, Failure> {
    let sql = if args.sql == "-" { io::read_to_string(io::stdin())? } else { args.sql };
    let client = args.remote.client()?;
    let mut call = Call::post("/api/v1/sql", "application/json", json!({ "query": sql }).to_string());
    let format = if args.remote.json { Format::Json } else { args.format };
    match format {
        Format::Csv => {
            call.accept = Some("text/csv");
            stream(&client, &call).await?;
        }
        Format::Ndjson => {
            call.accept = Some("application/x-ndjson");
            stream(&client, &call).await?;
        }
        Format::Json => {
            remote::print_json(&remote::ask(&mut client.session(), &call).await?)?;
        }
        Format::Table => {
            remote::print(&report(&remote::ask(&mut client.session(), &call).await?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies the answer to standard output as it comes.
async fn stream(client: &Client, call: &Call) -> Result<(), Failure> {
    let mut session = client.session();
    let mut answer = session.start(call).await?;
    if !answer.status.is_success() {
        return Err(remote::refusal(&answer.rest(REFUSAL_BYTES_MAX).await?));
    }
    let mut out = io::stdout().lock();
    while let Some(piece) = answer.next().await? {
        match out.write_all(&piece) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            outcome => outcome?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes an SQL answer as a table with its row count below.
fn report(answer: &Value) -> String {
    let columns = answer.get("columns").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let names: Vec<String> = columns
        .iter()
        .filter_map(|column| column.get("name").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let rows = answer.get("rows").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let columns = (!names.is_empty()).then_some(&names[..]);
    let mut text = Table::of_objects(rows, columns).render();
    let noun = if rows.len() == 1 { "row" } else { "rows" };
    text.push_str(&format!("\n{} {noun}", rows.len()));
    if answer.get("truncated").and_then(Value::as_bool) == Some(true) {
        text.push_str(", cut here: --format csv or ndjson prints all of them");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_counts_its_rows_and_tells_a_cut() {
        let answer = json!({"columns": [{"name": "source", "type": "Utf8"}, {"name": "n", "type": "Int64"}],
            "rows": [{"n": 3, "source": "cart"}], "row_count": 1, "truncated": true});
        let text = report(&answer);
        assert!(text.starts_with("source  n\ncart    3\n\n1 row, cut here"), "{text}");
        let empty = report(&json!({"columns": [{"name": "n"}], "rows": []}));
        assert_eq!(empty, "n\n\n0 rows\n");
    }
}
