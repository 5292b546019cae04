//! Every statement that a session keeps prepared.
//!
//! Rows go and come as columns, one array each, so that a statement is one message whatever the
//! number of rows. A write names the batch: it touches only groups whose row `pass` has marked
//! with it, in the same transaction.

use tokio_postgres::{Client, Error, Statement};

/// Prepares all of them in one round trip, into a struct with a field for each.
macro_rules! statements {
    ($($name:ident: $sql:expr,)+) => {
        pub(super) struct Statements {
            $(pub(super) $name: Statement,)+
        }

        impl Statements {
            pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
                let ($($name,)+) = futures_util::try_join!($(Box::pin(client.prepare($sql)),)+)?;
                Ok(Self { $($name,)+ })
            }
        }
    };
}

statements! {
    begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
    commit: "COMMIT",
    create: "INSERT INTO shoal.groups (group_id, epoch, tail, incarnation, batch, notices_due, settings, \
                                        created_ms, closed, members, senders_watermark, notices_watermark) \
             SELECT group_id, 0, 1, incarnation, 0, false, ''::bytea, created_ms, false, 0, 1, NULL::bigint \
             FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (group_id, incarnation, created_ms) \
             ORDER BY group_id ON CONFLICT (group_id) DO NOTHING",
    // In the order of the groups, in every transaction of every node: nobody waits in a circle.
    lock: "SELECT g.group_id, g.epoch, g.tail FROM shoal.groups AS g \
           JOIN unnest($1::bytea[]) AS a (group_id) ON g.group_id = a.group_id \
           ORDER BY g.group_id FOR UPDATE OF g",
    activate: "UPDATE shoal.groups AS g SET epoch = g.epoch + 1 \
               FROM unnest($1::bytea[]) AS a (group_id) WHERE g.group_id = a.group_id \
               RETURNING g.group_id, g.epoch, g.tail, g.incarnation, g.settings, g.created_ms, g.closed, \
                         g.members, g.senders_watermark, g.notices_watermark, g.layout, g.features",
    pass: "UPDATE shoal.groups AS g SET tail = a.tail_after, batch = $5 \
           FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) \
                AS a (group_id, epoch, tail, tail_after) \
           WHERE g.group_id = a.group_id AND g.epoch = a.epoch AND g.tail = a.tail \
           RETURNING g.group_id",
    state: "UPDATE shoal.groups AS g SET settings = a.settings, created_ms = a.created_ms, \
                   closed = a.closed, members = a.members, senders_watermark = a.senders_watermark, \
                   notices_watermark = a.notices_watermark, layout = a.layout, features = a.features \
            FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::boolean[], $5::bigint[], $6::bigint[], \
                        $7::bigint[], $8::bytea[], $9::bytea[]) \
                 AS a (group_id, settings, created_ms, closed, members, senders_watermark, \
                       notices_watermark, layout, features) \
            WHERE g.group_id = a.group_id AND g.batch = $10",
    notices: "UPDATE shoal.groups AS g SET notices_due = a.due \
              FROM unnest($1::bytea[], $2::boolean[]) AS a (group_id, due) \
              WHERE g.group_id = a.group_id AND g.batch = $3",
    records: "INSERT INTO shoal.records (group_id, seq, body) SELECT a.group_id, a.seq, a.body \
              FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS a (group_id, seq, body) \
              JOIN shoal.groups AS g ON g.group_id = a.group_id WHERE g.batch = $4",
    redactions: "UPDATE shoal.records AS r SET body = a.body \
                 FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS a (group_id, seq, body) \
                 JOIN shoal.groups AS g ON g.group_id = a.group_id \
                 WHERE g.batch = $4 AND r.group_id = a.group_id AND r.seq = a.seq",
    edits: "INSERT INTO shoal.edits (group_id, record, edit) SELECT a.group_id, a.record, a.edit \
            FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (group_id, record, edit) \
            JOIN shoal.groups AS g ON g.group_id = a.group_id WHERE g.batch = $4 \
            ON CONFLICT (group_id, record, edit) DO NOTHING",
    members_put: "INSERT INTO shoal.members \
                         (group_id, slot, user_id, role, muted_until_ms, banned, joined, changed) \
                  SELECT a.group_id, a.slot, a.user_id, a.role, a.muted_until_ms, a.banned, a.joined, a.changed \
                  FROM unnest($1::bytea[], $2::integer[], $3::bytea[], $4::integer[], $5::bigint[], \
                              $6::boolean[], $7::bigint[], $8::bigint[]) \
                       AS a (group_id, slot, user_id, role, muted_until_ms, banned, joined, changed) \
                  JOIN shoal.groups AS g ON g.group_id = a.group_id WHERE g.batch = $9 \
                  ON CONFLICT (group_id, slot, user_id) DO UPDATE \
                  SET role = excluded.role, muted_until_ms = excluded.muted_until_ms, \
                      banned = excluded.banned, joined = excluded.joined, changed = excluded.changed",
    members_removed: "DELETE FROM shoal.members AS m \
                      USING unnest($1::bytea[], $2::integer[], $3::bytea[]) AS a (group_id, slot, user_id) \
                      JOIN shoal.groups AS g ON g.group_id = a.group_id \
                      WHERE g.batch = $4 AND m.group_id = a.group_id AND m.slot = a.slot \
                            AND m.user_id = a.user_id",
    senders_put: "INSERT INTO shoal.senders (group_id, user_id, device, incarnation, numbers) \
                  SELECT a.group_id, a.user_id, a.device, a.incarnation, a.numbers \
                  FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[]) \
                       AS a (group_id, user_id, device, incarnation, numbers) \
                  JOIN shoal.groups AS g ON g.group_id = a.group_id WHERE g.batch = $6 \
                  ON CONFLICT (group_id, user_id, device, incarnation) DO UPDATE \
                  SET numbers = excluded.numbers",
    senders_removed: "DELETE FROM shoal.senders AS s \
                      USING unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[]) \
                            AS a (group_id, user_id, device, incarnation) \
                      JOIN shoal.groups AS g ON g.group_id = a.group_id \
                      WHERE g.batch = $5 AND s.group_id = a.group_id AND s.user_id = a.user_id \
                            AND s.device = a.device AND s.incarnation = a.incarnation",
    // greatest() passes over nulls.
    cursors_raised: "INSERT INTO shoal.cursors AS c (user_id, group_id, read, delivered) \
                     SELECT user_id, group_id, read, delivered \
                     FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[]) \
                          AS a (user_id, group_id, read, delivered) \
                     ORDER BY user_id, group_id ON CONFLICT (user_id, group_id) DO UPDATE \
                     SET read = greatest(c.read, excluded.read), \
                         delivered = greatest(c.delivered, excluded.delivered)",

    group: "SELECT group_id, epoch, tail, incarnation, settings, created_ms, closed, members, \
                   senders_watermark, notices_watermark, layout, features \
            FROM shoal.groups WHERE group_id = $1",
    read: "SELECT seq, body FROM ( \
               SELECT seq, body, first_value(octet_length(body)) OVER w AS first_bytes, \
                      sum(octet_length(body)) OVER w AS bytes \
               FROM shoal.records WHERE group_id = $1 AND seq >= $2 \
               WINDOW w AS (ORDER BY seq ROWS UNBOUNDED PRECEDING) ORDER BY seq LIMIT $3 \
           ) AS page WHERE bytes - first_bytes <= $4 ORDER BY seq",
    edits_of: "SELECT edit FROM shoal.edits WHERE group_id = $1 AND record = $2 ORDER BY edit",
    senders: "SELECT s.user_id, s.device, s.incarnation, s.numbers \
              FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS a (user_id, device, incarnation) \
              JOIN shoal.senders AS s ON s.group_id = $1 AND s.user_id = a.user_id \
                   AND s.device = a.device AND s.incarnation = a.incarnation",
    senders_of: "SELECT device, incarnation FROM shoal.senders WHERE group_id = $1 AND user_id = $2",
    members_of: "SELECT m.user_id, m.role, m.muted_until_ms, m.banned, m.joined, m.changed \
                 FROM unnest($2::integer[], $3::bytea[]) AS a (slot, user_id) JOIN shoal.members AS m \
                 ON m.group_id = $1 AND m.slot = a.slot AND m.user_id = a.user_id",
    members_page: "SELECT user_id, role, muted_until_ms, banned, joined, changed FROM shoal.members \
                   WHERE group_id = $1 AND (slot, user_id) > ($2, $3) AND slot < $4 \
                   ORDER BY slot, user_id LIMIT $5",
    groups_of: "SELECT group_id FROM shoal.members WHERE user_id = $1 AND role <> 0 AND group_id > $2 \
                ORDER BY group_id LIMIT $3",
    cursors_of: "SELECT c.group_id, c.read, c.delivered FROM unnest($2::bytea[]) AS a (group_id) \
                 JOIN shoal.cursors AS c ON c.user_id = $1 AND c.group_id = a.group_id",
    notices_due: "SELECT group_id FROM shoal.groups WHERE notices_due AND group_id > $1 \
                  ORDER BY group_id LIMIT $2",

    setting: "SELECT version, value FROM shoal.settings WHERE key = $1",
    settings: "SELECT key, version, value FROM shoal.settings WHERE key >= $1 AND \
               substring(key FROM 1 FOR octet_length($1)) = $1 ORDER BY key",
    setting_made: "INSERT INTO shoal.settings (key, version, value) VALUES ($1, 1, $2) \
                   ON CONFLICT (key) DO NOTHING RETURNING version",
    setting_changed: "UPDATE shoal.settings SET version = version + 1, value = $3 \
                      WHERE key = $1 AND version = $2 RETURNING version",
    setting_removed: "DELETE FROM shoal.settings WHERE key = $1 AND version = $2 RETURNING version",
}
