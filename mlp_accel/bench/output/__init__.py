"""Results for people: tables, figures, a report."""
