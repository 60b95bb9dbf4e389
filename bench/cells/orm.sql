-- What object mappers send, one statement a line; literals stand in braces. The trace is
-- 500 statements long: these, again and again, each time with other literals.
BEGIN
SELECT 1
SELECT "people"."id", "people"."name", "people"."email", "people"."country" FROM "people" WHERE "people"."id" = {id} LIMIT 1
SELECT "people"."id", "people"."name", "people"."email", "people"."country" FROM "people" WHERE "people"."id" = {id} LIMIT 21
SELECT "people"."id", "people"."name" FROM "people" WHERE "people"."id" IN ({id}, {id}, {id})
SELECT "people"."id", "people"."name" FROM "people" WHERE "people"."id" IN ({id}, {id}, {id}, {id}, {id})
SELECT people.id AS people_id, people.name AS people_name, people.email AS people_email FROM people WHERE people.id = {id}
SELECT people.id AS people_id, people.name AS people_name FROM people WHERE people.name = {name} AND people.country = {country}
SELECT people.id AS people_id, people.name AS people_name FROM people WHERE people.id BETWEEN {id} AND {id} ORDER BY people.id LIMIT 10
SELECT anon_1.people_id FROM (SELECT people.id AS people_id FROM people WHERE people.id < {id} ORDER BY people.id DESC LIMIT 5) AS anon_1
SELECT COUNT(*) AS "__count" FROM "people" WHERE "people"."id" = {id}
SELECT COUNT(*) FROM "people" WHERE ("people"."country" = {country} AND "people"."id" < {small})
SELECT (1) AS "a" FROM "people" WHERE "people"."id" = {id} LIMIT 1
SELECT 1 AS one FROM "people" WHERE "people"."name" = {name} AND "people"."id" = {id} LIMIT 1
SELECT MAX("people"."id") AS "id__max" FROM "people" WHERE "people"."id" < {small}
SELECT "people".* FROM "people" WHERE "people"."id" = {id} LIMIT 1
SELECT "people".* FROM "people" WHERE "people"."id" IN ({id}, {id}) ORDER BY "people"."id" ASC LIMIT 20 OFFSET 0
SELECT "big"."id", "big"."name", "big"."note" FROM "big" WHERE "big"."id" = {id}
SELECT "big"."id", "big"."note" FROM "big" WHERE "big"."id" = {id} AND "big"."created" > {when}
SELECT "big"."id", "big"."name", "people"."id", "people"."name" FROM "big" INNER JOIN "people" ON ("big"."id" = "people"."id") WHERE "big"."id" = {id} LIMIT 21
SELECT t0.id, t0.name, t1.note FROM people t0 LEFT OUTER JOIN big t1 ON t0.id = t1.id WHERE t0.id = {id}
SELECT b.id, b.card FROM big b WHERE b.id = {id} AND EXISTS (SELECT 1 FROM people p WHERE p.id = b.id AND p.country = {country})
SELECT "people"."country", COUNT("people"."id") AS "n" FROM "people" WHERE "people"."id" < {small} GROUP BY "people"."country"
SELECT "people"."country", COUNT("people"."id") AS "n" FROM "people" WHERE "people"."id" < {small} GROUP BY "people"."country" HAVING COUNT("people"."id") > {n}
SELECT pgbench_accounts.aid, pgbench_accounts.abalance FROM pgbench_accounts WHERE pgbench_accounts.aid = {id}
SELECT a1_0.aid, a1_0.bid, a1_0.abalance FROM pgbench_accounts a1_0 WHERE a1_0.aid = {id}
SELECT SUM(abalance) AS total FROM pgbench_accounts WHERE aid IN ({id}, {id}, {id}, {id})
SELECT p.id, CASE WHEN p.country = {country} THEN 1 ELSE 0 END AS home FROM people p WHERE p.id = {id}
SELECT p.id, COALESCE(p.name, {name}) AS name FROM people p WHERE p.id = {id}
SELECT p.id FROM people p WHERE p.id = {id} OR p.id = {id} ORDER BY p.id
SELECT p.id FROM people p WHERE p.name LIKE {like} AND p.id < {small} LIMIT 10
SELECT DISTINCT p.country FROM people p WHERE p.id < {small}
SELECT p.id, UPPER(p.name) AS upper FROM people p WHERE p.id = {id}
SELECT q.id FROM (SELECT id, name FROM people WHERE id = {id} UNION ALL SELECT id, name FROM big WHERE id = {id}) q
WITH picked AS (SELECT id, name FROM people WHERE id = {id}) SELECT id, name FROM picked
COMMIT
