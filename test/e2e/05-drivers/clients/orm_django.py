"""Django's ORM over psycopg2."""
import django
from django.conf import settings

from facts import *


def database(**own):
    return {"ENGINE": "django.db.backends.postgresql", "NAME": "warehouse", **own}


settings.configure(DATABASES={"default": database(), "shop": database(NAME="shop", USER=ENV["SHOP_USER"])}, INSTALLED_APPS=[], USE_TZ=True)
django.setup()

from django.db import ProgrammingError, models, transaction  # once it is set up


class Table(models.Model):
    class Meta:
        abstract, app_label, managed = True, "x", False


class Customer(Table):
    name, email, card, country = models.TextField(), models.TextField(), models.TextField(), models.TextField()

    class Meta(Table.Meta):
        db_table = "customers"


class Order(Table):
    customer = models.ForeignKey(Customer, models.DO_NOTHING)
    amount, status = models.DecimalField(max_digits=12, decimal_places=2), models.TextField()

    class Meta(Table.Meta):
        db_table = "orders"


class Salary(Table):
    salary = models.IntegerField(primary_key=True)

    class Meta(Table.Meta):
        db_table = 'hr"."salaries'


class Note(Table):
    driver, n, body = models.TextField(), models.IntegerField(primary_key=True), models.TextField(null=True)

    class Meta(Table.Meta):
        db_table = "notes"


def report():
    some = Order.objects.select_related("customer").filter(status__in=["open", "paid"]).order_by("id")[:3]
    for i, o in enumerate(some):
        fact(f"order.{i}", f"{o.id} {o.status} {o.customer.email}")
    groups = Order.objects.filter(customer__country__isnull=False).values("customer__country")
    fact("countries", len(groups.annotate(n=models.Count("*")).filter(n__gt=5).order_by("customer__country")))
    c = Customer.objects.get(id=900001)
    fact("masked", f"{c.email} {c.card}")
    fact("orders", c.order_set.count())
    fact("found by a masked value", Customer.objects.filter(email="canary@leak.example").count())
    try:
        list(Salary.objects.all())
    except ProgrammingError as e:
        fact("refused", f"{e.__cause__.pgcode} {e.__cause__.diag.message_primary}")


def shop():
    notes = Note.objects.using("shop")
    ours = notes.filter(driver="django")
    notes.bulk_create([Note(driver="django", n=n, body=f"note {n}") for n in range(10)])
    fact("created", ours.count())
    notes.update_or_create(driver="django", n=3, defaults={"body": "again"})  # it selects for update
    fact("updated", ours.filter(n__lt=3).update(body=None))
    fact("upserted", ours.get(n=3).body)
    with transaction.atomic(using="shop"):
        ours.delete()
        with transaction.atomic(using="shop"):  # a savepoint
            notes.bulk_create([Note(driver="django", n=99)])
        transaction.set_rollback(True, using="shop")
    fact("undone", str(not ours.filter(n=99).exists()).lower())
    fact("deleted", ours.delete()[0])


report()
shop()
