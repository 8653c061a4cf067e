-- `reparse` gives items, whose answers stay, another parser, and so another recipe; they must stay
-- the same items when their pool is enqueued again. So an experiment may know a recipe as another
-- one: the keys of items enqueued with it are made with that. Null: it is known as itself.
-- (What `items.recipe_id` names is changed by `reparse` and `retry --set`; identity never is.)

alter table experiment_recipes add column known_as integer references recipes (id);
