-- What people said of answers, a row an item: a verdict, a note, and a value that is better than the
-- parsed one. It is of one result: where the item has another one by now it is kept, shown as of an
-- earlier answer, and does not count. Answers and results never change by it.
create table reviews (
  item_id     integer primary key references items (id) on delete cascade,
  result_seq  integer not null,                    -- results.seq: what was looked at
  verdict     text,                                -- null: none yet
  note        text,
  edited      text,                                -- JSON, in place of the parsed value
  before      text,                                -- JSON: these three before the last change; null: none
  reviewed_at integer not null,
  constraint verdict_known    check (verdict = 'accepted' or verdict = 'rejected'),
  constraint says_something   check (coalesce(verdict, note, edited) is not null),
  constraint note_has_text    check (note <> ''),
  constraint edited_is_json   check (edited is null or json_valid(edited)),
  constraint before_is_object check (before is null or json_type(before) = 'object')
) strict;
