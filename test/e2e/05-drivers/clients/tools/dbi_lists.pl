# What Perl's DBI tells of a database.
use strict;
use warnings;
use DBI;

my $db = DBI->connect("dbi:Pg:", undef, undef, { RaiseError => 1, PrintError => 0 });
sub show {
    my ($rows) = @_;
    print join("|", map { $_ // "" } @$_), "\n" for @{ $rows->fetchall_arrayref };
}
show($db->table_info(undef, "%", "%", $_)) for "TABLE", "VIEW", "SYSTEM TABLE";
show($db->table_info("", "%", "", ""));
for my $table ("customers", "orders", "regions") {
    show($db->column_info(undef, "sales", $table, "%"));
    show($db->primary_key_info(undef, "sales", $table));
    show($db->statistics_info(undef, "sales", $table, 0, 0));
    show($db->foreign_key_info(undef, undef, undef, undef, "sales", $table) // next);
}
print join("|", $db->tables), "\n";
