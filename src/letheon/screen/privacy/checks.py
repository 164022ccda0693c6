"""Check digits: whether a number can have been issued. Each takes the bare characters, without spaces and marks."""

from __future__ import annotations

from datetime import date


def luhn(digits: str) -> bool:
    """Cards, Canadian SIN: Σ digits = 0 mod 10, every second from the right doubled (and less 9 where above 9)."""
    doubled = [int(d) * (1 + n % 2) for n, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def mod97(iban: str) -> bool:
    """IBAN (ISO 7064): first four characters to the end, letters as 10…35, the number = 1 mod 97."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def nhs(digits: str) -> bool:
    """UK NHS number: Σ d_k · (11 − k) = 0 mod 11 over ten digits, the last with weight 1; not ten times the same."""
    return len(digits) == 10 and len(set(digits)) > 1 and _weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def dni(value: str) -> bool:
    """Spanish DNI and NIE: the letter is that of the number mod 23; a NIE's X, Y, Z stands for 0, 1, 2."""
    number = value[:-1].translate(str.maketrans("XYZ", "012"))
    return len(value) == 9 and number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]


def cpf(digits: str) -> bool:
    """Brazilian CPF: two check digits, each 10 · Σ d_k · weight mod 11 (0 for 10); not eleven times the same."""
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for length in (9, 10):
        rest = _weighted(digits[:length], range(length + 1, 1, -1)) * 10 % 11 % 10
        if rest != int(digits[length]):
            return False
    return True


def bsn(digits: str) -> bool:
    """Dutch BSN: 9 d₁ + 8 d₂ + … + 2 d₈ − d₉ = 0 mod 11."""
    return len(digits) == 9 and int(digits) > 0 and _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def pesel(digits: str) -> bool:
    """Polish PESEL: a date (its century in the month) and Σ d_k · (1, 3, 7, 9, …) + check digit = 0 mod 10."""
    if len(digits) != 11 or _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10:
        return False
    century, month = divmod(int(digits[2:4]), 20)
    return _is_date({4: 1800, 0: 1900, 1: 2000, 2: 2100, 3: 2200}[century] + int(digits[:2]), month, int(digits[4:6]))


def nir(digits: str) -> bool:
    """French NIR: sex, year, month and place in 13 digits; the last two of 15 are 97 − (those mod 97)."""
    month = int(digits[3:5]) if len(digits) == 15 else 0
    return digits[:1] in ("1", "2") and 1 <= month <= 12 and 97 - int(digits[:13]) % 97 == int(digits[13:])


def tfn(digits: str) -> bool:
    """Australian TFN: Σ d_k · (1, 4, 3, 7, 5, 8, 6, 9, 10) = 0 mod 11."""
    return len(digits) == 9 and int(digits) > 0 and _weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def _weighted(digits: str, weights: range | tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
