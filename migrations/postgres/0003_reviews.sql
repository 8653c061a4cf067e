-- What people said of answers; see migrations/sqlite.
create table reviews (
  item_id     bigint primary key references items (id) on delete cascade,
  result_seq  bigint not null,                     -- results.seq: what was looked at
  verdict     text,                                -- null: none yet
  note        text,
  edited      text,                                -- JSON, in place of the parsed value
  before      text,                                -- JSON: these three before the last change; null: none
  reviewed_at bigint not null,
  constraint verdict_known    check (verdict = 'accepted' or verdict = 'rejected'),
  constraint says_something   check (coalesce(verdict, note, edited) is not null),
  constraint note_has_text    check (note <> ''),
  constraint edited_is_json   check (edited is null or is_json(edited)),
  constraint before_is_object check (before is null or json_typeof(before::json) = 'object')
);
