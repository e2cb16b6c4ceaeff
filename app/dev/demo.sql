-- The demo domain: a company that sells a work tracker, its customers, their work, its mails and its bills.
--
-- Made from row numbers alone: every value is a hash of its row's id, and every date lies before one fixed
-- moment, so the data are the same on every machine and at every time. app/dev/demo.py runs the steps in
-- one transaction; `demo.tasks` says how many tasks there are, and the events and invoices follow from it.

-- step: schema
DROP SCHEMA IF EXISTS demo CASCADE;
CREATE SCHEMA demo;

-- The moment before which everything happened.
CREATE FUNCTION demo.anchor() RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN timestamptz '2026-01-01 00:00:00+00';

-- A number from 0 to sides - 1: the same for the same id and salt.
CREATE FUNCTION demo.dice(id bigint, salt bigint, sides bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
    RETURN (hashint8extended(id, salt) & 9223372036854775807) % sides;

CREATE FUNCTION demo.pick(id bigint, salt bigint, words text[]) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN words[1 + demo.dice(id, salt, cardinality(words))];

CREATE TABLE demo.companies (
    id bigint NOT NULL,
    name text NOT NULL,
    country text NOT NULL,
    plan text NOT NULL,
    seats integer NOT NULL,
    created_at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE TABLE demo.members (
    id bigint NOT NULL,
    company_id bigint NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    role text NOT NULL,
    active boolean NOT NULL,
    joined_on date NOT NULL,
    last_seen_at timestamptz
);
CREATE TABLE demo.projects (
    id bigint NOT NULL,
    company_id bigint NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    budget numeric(12, 2),
    started_on date NOT NULL,
    ended_on date
);
CREATE TABLE demo.tasks (
    id bigint NOT NULL,
    project_id bigint NOT NULL,
    assignee_email text,
    title text NOT NULL,
    description text,
    status text NOT NULL,
    priority smallint NOT NULL,
    estimate_hours numeric(6, 2),
    due_on date,
    created_at timestamptz NOT NULL,
    completed_at timestamptz
);
CREATE TABLE demo.campaigns (
    id bigint NOT NULL,
    name text NOT NULL,
    channel text NOT NULL,
    budget numeric(12, 2) NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz
);
CREATE TABLE demo.campaign_events (
    id bigint NOT NULL,
    campaign_id bigint NOT NULL,
    member_id bigint NOT NULL,
    kind text NOT NULL,
    occurred_at timestamptz NOT NULL,
    details jsonb
);
CREATE TABLE demo.invoices (
    id bigint NOT NULL,
    company_id bigint NOT NULL,
    number text NOT NULL,
    issued_on date NOT NULL,
    due_on date NOT NULL,
    paid_on date,
    amount numeric(12, 2) NOT NULL,
    currency text NOT NULL,
    note text
);

-- step: companies, members, projects
INSERT INTO demo.companies
SELECT
    id,
    (ARRAY['Amber', 'Blue', 'Cedar', 'Delta', 'Ember', 'Fjord', 'Granite', 'Harbour', 'Iris', 'Juniper',
           'Köln', 'Lumen', 'Meridian', 'Nordic', 'Óbidos', 'Prairie', 'Quartz', 'River', 'Søren''s', 'Tōkyō'])
        [1 + id % 20]
    || ' '
    || (ARRAY['Analytics', 'Bakery', 'Cycles', 'Design', 'Energy', 'Foods', 'Glass', 'Health', 'Instruments',
              'Labs', 'Media', 'Partners'])[1 + id / 20 % 12]
    || demo.pick(id, 11, ARRAY[' GmbH', ', Inc.', ' Ltd', ' S.A.', ' Oy', ' & Co. KG', ' "Group"', '']),
    demo.pick(id, 12, ARRAY['DE', 'US', 'GB', 'FR', 'FI', 'JP', 'PT', 'DK', 'CA', 'BR']),
    demo.pick(id, 13, ARRAY['free', 'team', 'team', 'business', 'business', 'enterprise']),
    3 + demo.dice(id, 14, 240)::integer,
    demo.anchor() - interval '8 years' + demo.dice(id, 15, 1400) * interval '1 day',
    CASE WHEN demo.dice(id, 16, 12) = 0
         THEN demo.anchor() - demo.dice(id, 17, 600) * interval '1 day' END
FROM generate_series(1, 240) AS id;

INSERT INTO demo.members
SELECT
    id,
    1 + demo.dice(id, 21, 240),
    name,
    CASE id WHEN 1 THEN 'member@demo.waybill.test' WHEN 2 THEN 'admin@demo.waybill.test'
         ELSE replace(lower(translate(name, 'öéíüñŁØŞ', 'oeiunLOS')), ' ', '.')
              || id || '@company' || 1 + demo.dice(id, 21, 240) || '.example' END,
    demo.pick(id, 24, ARRAY['owner', 'manager', 'member', 'member', 'member', 'member', 'guest']),
    id < 3 OR demo.dice(id, 25, 9) > 0,
    joined_on,
    CASE WHEN demo.dice(id, 27, 7) > 0
         THEN greatest(joined_on, demo.anchor() - demo.dice(id, 28, 90 * 86400) * interval '1 second') END
FROM (
    SELECT id,
        (demo.anchor() - interval '6 years')::date + demo.dice(id, 26, 2190)::integer AS joined_on,
        CASE id WHEN 1 THEN 'Mona Member' WHEN 2 THEN 'Ada Admin' ELSE
            demo.pick(id, 22, ARRAY['Aiko', 'Björn', 'Chloé', 'Diego', 'Elif', 'Farid', 'Grace', 'Hana', 'Ivan',
                'José', 'Kwame', 'Łukasz', 'Maja', 'Nadia', 'Øyvind', 'Priya', 'Quentin', 'Rosa', 'Sofía', 'Tom'])
            || ' ' ||
            demo.pick(id, 23, ARRAY['Andersson', 'Brown', 'Costa', 'Dubois', 'Eriksen', 'Fischer', 'García',
                'Haddad', 'Ito', 'Jansen', 'Kowalska', 'Lindqvist', 'Müller', 'Nguyen', 'Okafor', 'Peña',
                'Rossi', 'Şahin', 'Tanaka', 'Weber']) END AS name
    FROM generate_series(1, 6000) AS id
) AS named;

INSERT INTO demo.projects
SELECT
    id,
    1 + demo.dice(id, 31, 240),
    demo.pick(id, 32, ARRAY['Website relaunch', 'Payroll migration', 'Warehouse move', 'Customer portal',
        'Security review', 'Mobile app', 'Annual report', 'Hiring plan', 'Trade fair "Nord"', 'Café pilot',
        'Data cleanup', 'Price list, all regions'])
    || ' ' || 2020 + demo.dice(id, 33, 6) || '-' || lpad((id % 100)::text, 2, '0'),
    demo.pick(id, 34, ARRAY['active', 'active', 'active', 'paused', 'finished', 'finished']),
    CASE WHEN demo.dice(id, 35, 6) > 0 THEN (5000 + demo.dice(id, 36, 25000000) / 100.0)::numeric(12, 2) END,
    (demo.anchor() - interval '6 years')::date + demo.dice(id, 37, 1800)::integer,
    CASE WHEN demo.dice(id, 34, 6) > 3
         THEN (demo.anchor() - interval '1 year')::date + demo.dice(id, 38, 360)::integer END
FROM generate_series(1, 2400) AS id;

-- Imports find companies by their names, and leave the ids of new members and invoices to the database.
ALTER TABLE demo.companies ADD PRIMARY KEY (id), ADD UNIQUE (name);
ALTER TABLE demo.members ADD PRIMARY KEY (id), ADD UNIQUE (email);
ALTER TABLE demo.members ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (START 6001);
ALTER TABLE demo.projects ADD PRIMARY KEY (id);
ALTER TABLE demo.members ADD FOREIGN KEY (company_id) REFERENCES demo.companies;
ALTER TABLE demo.projects ADD FOREIGN KEY (company_id) REFERENCES demo.companies;
CREATE INDEX ON demo.members (company_id);
CREATE INDEX ON demo.projects (company_id);

-- step: tasks
-- Every 400th task is the demo member's and another the demo admin's; one in twelve is nobody's.
INSERT INTO demo.tasks
SELECT
    task.id,
    1 + demo.dice(task.id, 41, 2400),
    member.email,
    demo.pick(task.id, 43, ARRAY['Review', 'Draft', 'Fix', 'Update', 'Prepare', 'Discuss', 'Translate', 'Test',
        'Archive', 'Plan'])
    || ' ' ||
    demo.pick(task.id, 44, ARRAY['the price list', 'invoice template', 'onboarding mails', 'search filters',
        'the "About us" page', 'supplier contracts', 'backup schedule', 'press kit', 'menu (crème brûlée)',
        'quarterly figures', 'access rights', 'team calendar'])
    || CASE WHEN demo.dice(task.id, 45, 3) = 0 THEN ' #' || task.id ELSE '' END,
    CASE demo.dice(task.id, 46, 10)
        WHEN 0 THEN NULL
        WHEN 1 THEN 'Steps:' || E'\n' || '1. ask ' || coalesce(member.name, 'the team') || E'\n'
            || '2. write it down, then close this'
        WHEN 2 THEN 'They said "as soon as possible", which means before ' || task.id % 28 + 1 || ' March.'
        WHEN 3 THEN 'Übergabe an das Team in Zürich, 価格表 included; costs about '
            || demo.dice(task.id, 47, 9000) || ' €.'
        ELSE demo.pick(task.id, 48, ARRAY[
            'Check the numbers with finance, then send the result to the customer.',
            'Copied from the old tracker; see the comments there for the background.',
            'Needs a decision first: keep it, replace it or drop it?',
            'Small, but it blocks the release. Ask in the channel if anything is unclear.',
            'The customer asked twice. Answer by mail, and add what you learned to the handbook.',
            'Waiting for the supplier; look again next week.'])
    END,
    status,
    1 + demo.dice(task.id, 49, 4),
    CASE WHEN demo.dice(task.id, 50, 7) > 0 THEN (1 + demo.dice(task.id, 51, 160)) / 4.0 END,
    CASE WHEN demo.dice(task.id, 52, 5) > 0
         THEN (created_at AT TIME ZONE 'UTC')::date + 3 + demo.dice(task.id, 53, 60)::integer END,
    created_at,
    CASE WHEN status = 'done'
         THEN least(created_at + demo.dice(task.id, 54, 45 * 86400) * interval '1 second', demo.anchor()) END
FROM (
    SELECT
        id,
        CASE id % 400 WHEN 7 THEN 1 WHEN 8 THEN 2
             ELSE CASE WHEN demo.dice(id, 42, 12) > 0 THEN 3 + demo.dice(id, 55, 5998) END END AS member_id,
        -- Ids grow with time, as they do where a sequence makes them.
        demo.anchor() - interval '2190 days'
            + ((id - 0.5) * 2190 * 86400 / current_setting('demo.tasks')::bigint)::bigint * interval '1 second'
            AS created_at,
        demo.pick(id, 56, ARRAY['open', 'open', 'in progress', 'blocked', 'done', 'done', 'done', 'done'])
            AS status
    FROM generate_series(1, current_setting('demo.tasks')::bigint) AS id
) AS task
LEFT JOIN demo.members AS member ON member.id = task.member_id
ORDER BY task.id;

-- step: indexes of the tasks
ALTER TABLE demo.tasks ADD PRIMARY KEY (id);
ALTER TABLE demo.tasks ADD FOREIGN KEY (project_id) REFERENCES demo.projects;
CREATE INDEX ON demo.tasks (project_id);
CREATE INDEX ON demo.tasks (assignee_email);
CREATE INDEX ON demo.tasks (created_at);

-- step: campaigns and their events
INSERT INTO demo.campaigns
SELECT
    id,
    demo.pick(id, 61, ARRAY['Spring', 'Summer', 'Autumn', 'Winter']) || ' '
    || demo.pick(id, 62, ARRAY['offer', 'news', 'webinar', 'survey', 'welcome series', 'win-back', 'fête'])
    || ' ' || 2020 + id / 30,
    demo.pick(id, 63, ARRAY['email', 'email', 'web', 'event', 'post']),
    (200 + demo.dice(id, 64, 2000000) / 100.0)::numeric(12, 2),
    demo.anchor() - interval '2190 days' + id * interval '12 days',
    CASE WHEN demo.dice(id, 65, 5) > 0 THEN demo.anchor() - interval '2150 days' + id * interval '12 days' END
FROM generate_series(1, 178) AS id;

INSERT INTO demo.campaign_events
SELECT
    event.id,
    campaign.id,
    1 + demo.dice(event.id, 72, 6000),
    demo.pick(event.id, 73, ARRAY['sent', 'sent', 'sent', 'opened', 'opened', 'clicked', 'bounced', 'unsubscribed']),
    campaign.starts_at + demo.dice(event.id, 74, 10 * 86400) * interval '1 second',
    CASE WHEN demo.dice(event.id, 75, 4) = 0
         THEN jsonb_build_object('device', demo.pick(event.id, 76, ARRAY['phone', 'desktop', 'tablet'])) END
FROM generate_series(1, current_setting('demo.tasks')::bigint / 5) AS event (id)
JOIN demo.campaigns AS campaign ON campaign.id = 1 + demo.dice(event.id, 71, 178)
ORDER BY event.id;

ALTER TABLE demo.campaigns ADD PRIMARY KEY (id);
ALTER TABLE demo.campaign_events ADD PRIMARY KEY (id);
ALTER TABLE demo.campaign_events ADD FOREIGN KEY (campaign_id) REFERENCES demo.campaigns;
ALTER TABLE demo.campaign_events ADD FOREIGN KEY (member_id) REFERENCES demo.members;
CREATE INDEX ON demo.campaign_events (campaign_id, kind);

-- step: invoices
INSERT INTO demo.invoices
SELECT
    id,
    1 + demo.dice(id, 81, 240),
    'INV-' || extract(year FROM issued_on) || '-' || lpad(id::text, 6, '0'),
    issued_on,
    issued_on + 30,
    CASE WHEN demo.dice(id, 82, 15) > 0 THEN issued_on + 2 + demo.dice(id, 83, 70)::integer END,
    ((1 + demo.dice(id, 84, 400)) * (1 + demo.dice(id, 85, 30)) + demo.dice(id, 86, 100) / 100.0)::numeric(12, 2),
    demo.pick(id, 87, ARRAY['EUR', 'EUR', 'EUR', 'USD', 'USD', 'GBP', 'CHF']),
    CASE demo.dice(id, 88, 8)
        WHEN 0 THEN 'Second reminder sent; "will pay soon"'
        WHEN 1 THEN 'Address changed, see file' || E'\n' || 'Neue Straße 5, 10115 Berlin'
    END
FROM (
    SELECT id, (demo.anchor() - interval '4 years')::date + demo.dice(id, 80, 1400)::integer AS issued_on
    FROM generate_series(1, current_setting('demo.tasks')::bigint / 25) AS id
) AS invoice
ORDER BY id;

ALTER TABLE demo.invoices ADD PRIMARY KEY (id), ADD UNIQUE (number);
ALTER TABLE demo.invoices ADD FOREIGN KEY (company_id) REFERENCES demo.companies;
ALTER TABLE demo.invoices ALTER id ADD GENERATED BY DEFAULT AS IDENTITY;
SELECT setval(pg_get_serial_sequence('demo.invoices', 'id'), max(id)) FROM demo.invoices;
CREATE INDEX ON demo.invoices (due_on) WHERE paid_on IS NULL;

-- step: statistics
ANALYZE demo.companies, demo.members, demo.projects, demo.tasks;
ANALYZE demo.campaigns, demo.campaign_events, demo.invoices;
