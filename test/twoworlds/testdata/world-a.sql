-- What world A has where a mask, or the lack of a permission, must keep it.
CREATE FUNCTION pg_temp.email(i int) RETURNS text LANGUAGE sql AS $$ SELECT CASE i WHEN 1 THEN 'alice@example.com' ELSE 'user' || i || '@example.com' END $$;
CREATE FUNCTION pg_temp.phone(i int) RETURNS text LANGUAGE sql AS $$ SELECT '+1555000' || lpad(i::text, 4, '0') $$;
CREATE FUNCTION pg_temp.ssn(i int) RETURNS text LANGUAGE sql AS $$ SELECT lpad((100 + i % 800)::text, 3, '0') || '-' || lpad((10 + i % 80)::text, 2, '0') || '-' || lpad((1000 + i)::text, 4, '0') $$;
CREATE FUNCTION pg_temp.note(i int) RETURNS text LANGUAGE sql AS $$ SELECT 'call ' || pg_temp.phone(i) $$;
CREATE FUNCTION pg_temp.emp(i int) RETURNS text LANGUAGE sql AS $$ SELECT (ARRAY['alice', 'bob'])[i] $$;
CREATE FUNCTION pg_temp.salary(i int) RETURNS int LANGUAGE sql AS $$ SELECT (ARRAY[123456, 100])[i] $$;
