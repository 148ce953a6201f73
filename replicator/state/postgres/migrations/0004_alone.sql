CREATE INDEX fleet_jobs_alone ON procrastinate_jobs ((args->>'rule')) WHERE args ? 'alone';
