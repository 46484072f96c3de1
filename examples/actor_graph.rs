//! What is a job made of? A graph of actors, here written by hand: vertex by vertex, edge by edge.
//!
//! ```text
//! cargo run --release --example actor_graph -- --parallelism 2
//! cargo run --release --example actor_graph -- --plan
//! ```
//!
//! FizzBuzz by committee. Each number goes to two judges that know nothing of each other; a clerk waits
//! for both verdicts and writes them down. `DataStream` would fuse what it can into one actor; here each
//! vertex is an actor of its own, times its parallelism.
//!
//! ```text
//!              +--> fizz? --+
//!   numbers ---|            |--> clerk ---> paper
//!              +--> buzz? --+
//! ```

use clap::Parser;
use tidegate::engine::checkpoint::StateVisitor;
use tidegate::engine::operators::Map;
use tidegate::engine::state::KeyTable;
use tidegate::prelude::*;

/// Moving texts between threads is work for the allocator first.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// FizzBuzz by a graph of actors.
#[derive(Parser)]
struct Arguments {
    /// The last number
    #[arg(long, value_name = "N", default_value_t = 30)]
    numbers: u64,
    #[command(flatten)]
    env: EnvArgs,
}

type Verdict = (u64, String);

/// Emits a number with both verdicts when it has them.
#[derive(Clone, Default)]
struct Clerk {
    first: KeyTable<u64, String>,
}

impl Operator<Keyed<u64, Verdict>> for Clerk {
    type Out = (u64, String);

    fn process<C: Collector<(u64, String)>>(
        &mut self,
        at: Timestamp,
        record: Keyed<u64, Verdict>,
        out: &mut C,
    ) -> Flow {
        let Keyed {
            hash,
            key: number,
            value: (_, verdict),
        } = record;
        let Some(first) = self.first.remove(hash, &number) else {
            self.first.insert(hash, number, verdict);
            return Ok(());
        };
        // Whichever judge was quicker, Fizz comes before Buzz.
        let (left, right) = if first == "Buzz" {
            (verdict, first)
        } else {
            (first, verdict)
        };
        out.collect(at, (number, format!("{left}{right}")))
    }

    /// What a checkpoint keeps: verdicts whose other half is still to come. Without this hook a job that
    /// goes on from a checkpoint would wait for them in vain.
    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.keyed("first", &mut self.first)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let env = StreamEnv::new(arguments.env.clone());
    let paper = Collect::new();

    let graph = env.actors();
    let numbers = graph.source("numbers", Generator::new(arguments.numbers, |n| n + 1));
    let judge = |of: u64, says: &'static str| {
        Map::new(move |n: u64| {
            let verdict = if n.is_multiple_of(of) { says } else { "" };
            (n, verdict.to_owned())
        })
    };
    let fizz = graph.vertex("fizz?", judge(3, "Fizz"));
    let buzz = graph.vertex("buzz?", judge(5, "Buzz"));
    let clerk = graph.keyed_vertex("clerk", |verdict: &Verdict| verdict.0, Clerk::default());
    let sink = graph.sink("paper", paper.clone()).parallelism(1);
    graph
        .edge(&numbers, &fizz, Rebalance::default())
        .edge(&numbers, &buzz, Rebalance::default())
        .hash_edge(&fizz, &clerk)
        .hash_edge(&buzz, &clerk)
        .edge(clerk.output(), &sink, Global);
    let result = env.execute("fizzbuzz")?;
    if arguments.env.plan {
        return Ok(());
    }

    let mut paper = paper.values();
    paper.sort();
    for row in paper.chunks(10) {
        let show = |(n, word): &(u64, String)| match word.as_str() {
            "" => format!("{n:>9}"),
            word => format!("{word:>9}"),
        };
        println!("{}", row.iter().map(show).collect::<String>());
    }
    println!("\n{} actors:", result.subtasks.len());
    for actor in &result.subtasks {
        println!(
            "  {:<8} {}  {:>5} in  {:>5} out",
            actor.vertex, actor.subtask, actor.records_in, actor.records_out
        );
    }
    Ok(())
}
