-- Leads to what an item ended with before it was parsed or asked again.
create index results_of_item on results (item_id);
