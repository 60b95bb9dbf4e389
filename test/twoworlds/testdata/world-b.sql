-- The same for world B: other texts, another order, other lengths, nothing where A has
-- something. One e-mail stands in both, so that whoever writes it meets the same key.
CREATE FUNCTION pg_temp.email(i int) RETURNS text LANGUAGE sql AS $$ SELECT CASE i WHEN 2 THEN 'alice@example.com' WHEN 7 THEN NULL WHEN 9 THEN '' ELSE repeat('z', 1 + (i * 7) % 23) || (90000 - i) || '@other.invalid' END $$;
CREATE FUNCTION pg_temp.phone(i int) RETURNS text LANGUAGE sql AS $$ SELECT '+4977' || (99999 - i) || repeat('3', i % 5) $$;
CREATE FUNCTION pg_temp.ssn(i int) RETURNS text LANGUAGE sql AS $$ SELECT 'none-' || (i * 31) % 977 $$;
CREATE FUNCTION pg_temp.note(i int) RETURNS text LANGUAGE sql AS $$ SELECT repeat('ring ', i % 9) || pg_temp.phone(i) $$;
CREATE FUNCTION pg_temp.emp(i int) RETURNS text LANGUAGE sql AS $$ SELECT (ARRAY['zacharias', 'al'])[i] $$;
CREATE FUNCTION pg_temp.salary(i int) RETURNS int LANGUAGE sql AS $$ SELECT (ARRAY[654321, 7])[i] $$;
