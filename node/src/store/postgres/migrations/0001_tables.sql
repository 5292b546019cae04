-- Group, user and setting keys are bytes: their order is the same in every engine and locale.
-- Numbers are 64 bits wide; those that are unsigned in the node keep their bits.

CREATE TABLE IF NOT EXISTS shoal.groups (
    group_id          bytea   NOT NULL PRIMARY KEY,
    epoch             bigint  NOT NULL,
    tail              bigint  NOT NULL,
    incarnation       bigint  NOT NULL,
    -- The batch that appended last: in its transaction, the groups that passed the fence.
    batch             bigint  NOT NULL,
    notices_due       boolean NOT NULL,
    settings          bytea   NOT NULL,
    created_ms        bigint  NOT NULL,
    closed            boolean NOT NULL,
    members           bigint  NOT NULL,
    senders_watermark bigint  NOT NULL,
    notices_watermark bigint
) {BY_GROUP};

CREATE INDEX IF NOT EXISTS groups_notices_due ON shoal.groups (group_id) WHERE notices_due;

CREATE TABLE IF NOT EXISTS shoal.records (
    group_id bytea  NOT NULL,
    seq      bigint NOT NULL,
    body     bytea  NOT NULL,
    PRIMARY KEY (group_id, seq)
) {BY_GROUP};

CREATE TABLE IF NOT EXISTS shoal.edits (
    group_id bytea  NOT NULL,
    record   bigint NOT NULL,
    edit     bigint NOT NULL,
    PRIMARY KEY (group_id, record, edit)
) {BY_GROUP};

CREATE TABLE IF NOT EXISTS shoal.members (
    group_id       bytea   NOT NULL,
    slot           integer NOT NULL,
    user_id        bytea   NOT NULL,
    role           integer NOT NULL,
    muted_until_ms bigint  NOT NULL,
    banned         boolean NOT NULL,
    joined         bigint  NOT NULL,
    changed        bigint  NOT NULL,
    PRIMARY KEY (group_id, slot, user_id)
) {BY_GROUP};

-- The groups of a user. A row without a role is of somebody banned.
CREATE INDEX IF NOT EXISTS members_of_user ON shoal.members (user_id, group_id) WHERE role <> 0;

CREATE TABLE IF NOT EXISTS shoal.senders (
    group_id    bytea  NOT NULL,
    user_id     bytea  NOT NULL,
    device      bigint NOT NULL,
    incarnation bigint NOT NULL,
    numbers     bytea  NOT NULL,
    PRIMARY KEY (group_id, user_id, device, incarnation)
) {BY_GROUP};

CREATE TABLE IF NOT EXISTS shoal.cursors (
    user_id   bytea NOT NULL,
    group_id  bytea NOT NULL,
    read      bigint,
    delivered bigint,
    PRIMARY KEY (user_id, group_id)
) {BY_USER};

CREATE TABLE IF NOT EXISTS shoal.settings (
    key     bytea  NOT NULL PRIMARY KEY,
    version bigint NOT NULL,
    value   bytea  NOT NULL
);

-- Which database this is, and which ones make up the store, in their order; one row.
CREATE TABLE IF NOT EXISTS shoal.store (
    one      integer NOT NULL PRIMARY KEY CHECK (one = 1),
    identity bigint  NOT NULL,
    list     bigint[]
);
