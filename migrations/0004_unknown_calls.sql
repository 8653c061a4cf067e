-- `status` tells the most that calls with unknown outcome can have cost; there are few of them among
-- millions of attempts.

create index attempts_unknown on attempts (seq) where outcome = 'unknown';
