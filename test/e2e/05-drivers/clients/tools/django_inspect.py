"""The models that Django makes of what it finds."""
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "warehouse"}}, INSTALLED_APPS=[])
django.setup()
call_command("inspectdb")
