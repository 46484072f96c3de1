//! What a snapshot of a table in memory costs the stream that goes on changing it.

use super::{BATCH, BUDGET};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate::engine::checkpoint::{KeyedPart, KeyedSection};
use tidegate::engine::hash::key_hash;
use tidegate::engine::state::KeyTable;

/// Of so many keys, which `change` changes at random.
pub fn snapshot<V>(title: &str, keys: u64, change: impl Fn(&mut V))
where
    V: Default + serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    let mut table: KeyTable<u64, V> = KeyTable::default();
    for key in 0..keys {
        table.insert_new(key_hash(&key), key, V::default());
    }
    let size = table.capacity() * size_of::<(u64, V)>() / 1_000_000;
    println!("{title}, {keys} keys, {size} MB");
    let mut records = Records { next: 1, keys };
    let alone = (0..2000).map(|_| records.batch(&mut table, &change));
    println!("  alone          {}", rate(alone.sum(), 2000));

    let began = Instant::now();
    table.freeze().expect("freezes");
    println!("  freeze         {:?}", began.elapsed());
    let mut section = KeyedSection::new(128);
    let (mut steps, mut changing) = (Vec::new(), Duration::ZERO);
    loop {
        let began = Instant::now();
        let complete = table.save(&mut section, BUDGET).expect("saves");
        steps.push(began.elapsed());
        if complete {
            break;
        }
        changing += records.batch(&mut table, &change);
    }
    let turns = steps.len() as u32;
    let saving: Duration = steps.iter().sum();
    steps.sort();
    println!("  while saving   {}", rate(changing, turns));
    println!(
        "  save({BUDGET})     {:?} on average, p99 {:?}, longest {:?}, {turns} times",
        saving / turns,
        steps[steps.len() * 99 / 100],
        steps[steps.len() - 1],
    );
    println!("  saved          {} bytes", section.into_data().bytes());
    let after = (0..2000).map(|_| records.batch(&mut table, &change));
    println!("  alone again    {}", rate(after.sum(), 2000));
}

fn rate(time: Duration, batches: u32) -> String {
    let records = f64::from(batches) * BATCH as f64;
    format!(
        "{:.1} M changes per second",
        records / time.as_secs_f64() / 1e6
    )
}

/// Keys at random, each as likely as any other: the worst for caches and for a snapshot.
struct Records {
    next: u64,
    keys: u64,
}

impl Records {
    fn batch<V>(&mut self, table: &mut KeyTable<u64, V>, change: &impl Fn(&mut V)) -> Duration {
        let began = Instant::now();
        for _ in 0..BATCH {
            self.next = key_hash(&self.next);
            let key = self.next % self.keys;
            if let Some(value) = table.get_mut(key_hash(&key), black_box(&key)) {
                change(value);
            }
        }
        began.elapsed()
    }
}
