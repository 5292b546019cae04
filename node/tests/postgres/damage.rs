//! Rows that somebody has tampered with.

use futures_util::future::join_all;
use shoal_node::store::{AppendError, ReadLimit, StoreError};

use crate::world::{activate, append, client, database, group, open, records, seq};

#[tokio::test]
async fn a_record_where_the_next_one_should_stand_is_reported_and_stays_with_its_group() {
    let url = database().await;
    let store = open(&[&url]).await.unwrap();
    let rows = join_all((0..20).map(|number| activate(&store, group(number)))).await;
    let id = group(7).as_bytes().to_vec();
    let tamper = "INSERT INTO shoal.records (group_id, seq, body) VALUES ($1, 1, 'not ours')";
    client(&url).await.execute(tamper, &[&id]).await.unwrap();
    let appends = rows.iter().zip(0..).map(|(row, number)| {
        append(&store, group(number), row.epoch, row.tail, records([format!("{number}")]))
    });
    for (outcome, number) in join_all(appends).await.into_iter().zip(0..) {
        if number == 7 {
            assert!(matches!(outcome, Err(AppendError::Store(StoreError::Corrupt(_)))), "{outcome:?}");
        } else {
            assert_eq!(outcome, Ok(()), "group {number}");
        }
    }
    assert_eq!(store.group(group(7)).await.unwrap().unwrap().tail, seq(1));
}

#[tokio::test]
async fn a_hole_is_reported_and_not_read_over() {
    let url = database().await;
    let store = open(&[&url]).await.unwrap();
    let row = activate(&store, group(1)).await;
    append(&store, group(1), row.epoch, row.tail, records(["a".into(), "b".into(), "c".into()]))
        .await
        .unwrap();
    client(&url).await.execute("DELETE FROM shoal.records WHERE seq = 2", &[]).await.unwrap();
    let limit = ReadLimit { records_max: 9, bytes_max: 99 };
    let read = store.read(group(1), seq(1), limit).await;
    assert!(matches!(&read, Err(StoreError::Corrupt(why)) if why.contains("record 2")), "{read:?}");
    assert_eq!(store.read(group(1), seq(3), limit).await.unwrap(), ["c"]);
}
